-- Gives the lead of the ingest up, and tells those who stand by.
-- KEYS: leader
-- ARGV: 1 me, 2 log channel
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'l 0 0\n')
return 1
