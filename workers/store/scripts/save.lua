-- Writes a record if the stored one has the expected epoch.
-- KEYS: session, poll
-- ARGV: 1 expected epoch, 2 json, 3 ttl ms, 4 wake channel, 5 sid, 6 me
local current = redis.call('GET', KEYS[1])
if not current then return {'gone'} end
local polls = redis.call('EXISTS', KEYS[2]) == 1
if current ~= ARGV[2] then
  local epoch = epoch_of(current)
  if epoch ~= ARGV[1] then return {'fenced', epoch} end
end
if not polls then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif current ~= ARGV[2] then
  -- A polling session lives from pong to pong; a changed record does not prolong it.
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
  redis.call('HINCRBY', KEYS[2], 'rev', 1)
  local lease = redis.call('HGET', KEYS[2], 'get')
  if lease and lease ~= '' and incarnation(lease) ~= ARGV[6] then wake(ARGV[4], lease, ARGV[5]) end
end
return {'done'}
