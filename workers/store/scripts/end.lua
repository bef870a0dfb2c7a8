-- Ends a session.
-- KEYS: session, poll, mail, lost, moved
-- ARGV: 1 expected epoch or '', 2 json to keep or '', 3 window ms, 4 wake channel, 5 sid
local current = redis.call('GET', KEYS[1])
if current and ARGV[1] ~= '' and epoch_of(current) ~= ARGV[1] then return 'fenced' end
local lease = redis.call('HGET', KEYS[2], 'get')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[5])
if ARGV[2] ~= '' then
  -- A session that is gone already may have been lost, and taken over, meanwhile.
  if current then
    redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[3])
  else
    redis.call('SET', KEYS[4], ARGV[2], 'NX', 'PX', ARGV[3])
  end
end
wake(ARGV[4], lease, ARGV[5])
return 'done'
