-- Changes the record of a session between two requests of its client.
-- KEYS: session, poll
-- ARGV: 1 json that is there, 2 json that is to be there, 3 dead key prefix, 4 lease of a POST ms
local current = redis.call('GET', KEYS[1])
if not current then return 'gone' end
if current == ARGV[2] then return 'done' end
local p = redis.call('HMGET', KEYS[2], 'post', 'postd')
-- A POST under way has read the record, and will write it.
if current ~= ARGV[1] or held(p[1], p[2], now_ms(), ARGV[3], ARGV[4]) then return 'again' end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HINCRBY', KEYS[2], 'rev', 1) end
return 'done'
