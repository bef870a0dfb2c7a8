-- Gives the lease of a poll back.
-- KEYS: poll
-- ARGV: 1 me and request
if redis.call('HGET', KEYS[1], 'get') == ARGV[1] then redis.call('HSET', KEYS[1], 'get', '') end
return 'done'
