-- A new session that polls.
-- KEYS: session, poll, mail, moved
-- ARGV: 1 json, 2 ttl ms, 3 head, 4 ping interval ms, 5 liveness ms, 6 the id that its handshake came with or ''
local ping = int(now_ms() + ARGV[4])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[2], 'cur', ARGV[3], 'sent', ARGV[3], 'n', 0, 'rev', 1, 'ping', ping)
if ARGV[6] ~= '' then redis.call('HSET', KEYS[2], 'first', ARGV[6]) end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 'done'
