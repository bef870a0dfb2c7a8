-- Does with a session's key what a session does with it, in one step, so that it is never seen or counted.
-- KEYS: session
-- ARGV: 1 json, 2 ttl ms
-- Answer: what was read, its ttl ms, keys deleted, keys left
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local json, ttl = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
return {json, ttl, redis.call('DEL', KEYS[1]), redis.call('EXISTS', KEYS[1])}
