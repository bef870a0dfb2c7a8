-- Moves a pid from one session to another.
-- KEYS: old session, old lost, pid, old poll, old mail
-- ARGV: 1 expected epoch, 2 json of the old session or '', 3 new sid, 4 ttl ms, 5 wake channel, 6 old sid
local where = KEYS[1]
local current = redis.call('GET', where)
if not current then
  where = KEYS[2]
  current = redis.call('GET', where)
end
if not current then
  -- The same call once more, after it deleted the record?
  if ARGV[2] == '' and redis.call('GET', KEYS[3]) == ARGV[3] then return {'done'} end
  return {'gone'}
end
local epoch = epoch_of(current)
if epoch ~= ARGV[1] then
  if current == ARGV[2] and redis.call('GET', KEYS[3]) == ARGV[3] then return {'done'} end
  return {'fenced', epoch}
end
local lease = redis.call('HGET', KEYS[4], 'get')
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5])
else
  redis.call('SET', where, ARGV[2], 'KEEPTTL')
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('HINCRBY', KEYS[4], 'rev', 1) end
end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
wake(ARGV[5], lease, ARGV[6])
return {'done'}
