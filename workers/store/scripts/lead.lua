-- Takes or prolongs the lead of the ingest.
-- KEYS: leader
-- ARGV: 1 me, 2 ttl ms, 3 dead key prefix
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] and redis.call('EXISTS', ARGV[3] .. leader) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
