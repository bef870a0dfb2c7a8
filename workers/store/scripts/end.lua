-- Ends sessions.
-- KEYS: session, poll, mail, lost, moved of each
-- ARGV: 1 wake channel, then for each: expected epoch or '', json to keep or '', window ms, sid
local function finish(session, poll, mail, lost, moved, epoch, keep, window, sid)
  local current = redis.call('GET', session)
  if current and epoch ~= '' and epoch_of(current) ~= epoch then return end
  local lease = redis.call('HGET', poll, 'get')
  redis.call('DEL', session, poll, mail, moved)
  if keep ~= '' then
    -- A session that is gone already may have been lost, and taken over, meanwhile.
    if current then
      redis.call('SET', lost, keep, 'PX', window)
    else
      redis.call('SET', lost, keep, 'NX', 'PX', window)
    end
  end
  wake(ARGV[1], lease, sid)
end

for i = 0, #KEYS / 5 - 1 do
  local k, a = 5 * i, 4 * i + 1
  finish(KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4], KEYS[k + 5],
    ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4])
end
return 'done'
