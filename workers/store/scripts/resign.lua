-- Gives the lead of the ingest up.
-- KEYS: leader
-- ARGV: 1 me
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
