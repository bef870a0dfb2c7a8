-- Finds the record that a pid belongs to.
-- KEYS: pid
-- ARGV: 1 sid in the pid, 2 session key prefix, 3 lost key prefix
local sid = redis.call('GET', KEYS[1]) or ARGV[1]
return redis.call('GET', ARGV[2] .. '{' .. sid .. '}') or redis.call('GET', ARGV[3] .. '{' .. sid .. '}')
