-- A step of an upgrade to WebSocket.
-- KEYS: session, poll, mail, moved poll, moved mail
-- ARGV: 1 me and request, 2 step (begin|probed|finish|cancel), 3 timeout or repeat window ms,
--       4 dead key prefix, 5 wake channel, 6 sid, 7 lease of a POST ms
local json = redis.call('GET', KEYS[1])
if not json then return {'gone'} end
local step = ARGV[2]
local p = redis.call('HMGET', KEYS[2], 'sent', 'n', 'post', 'postd', 'get', 'up', 'upd', 'upt')
local now = now_ms()

if not p[1] then
  -- `finish` once more: what it found was put aside for a while.
  if step == 'finish' and redis.call('HGET', KEYS[4], 'up') == ARGV[1] then
    return {'done', json, redis.call('HGET', KEYS[4], 'sent'), redis.call('LRANGE', KEYS[5], 0, -1)}
  end
  if step == 'begin' then return {'moved', json} end
  return {'gone'}
end

if step == 'begin' then
  if p[6] ~= ARGV[1] and held(p[6], p[7], now, ARGV[4], p[8]) then return {'busy'} end
  redis.call('HSET', KEYS[2], 'up', ARGV[1], 'upd', int(now + ARGV[3]), 'upt', ARGV[3], 'probed', '0')
  return {'go', json}
end

if p[6] ~= ARGV[1] then return {'gone'} end
if step == 'cancel' then
  redis.call('HSET', KEYS[2], 'up', '', 'probed', '0')
  return {'done'}
end
if tonumber(p[7]) <= now then return {'gone'} end
if step == 'probed' then
  redis.call('HSET', KEYS[2], 'probed', '1')
  wake(ARGV[5], p[5], ARGV[6])
  return {'done'}
end

if held(p[3], p[4], now, ARGV[4], ARGV[7]) then return {'busy'} end
if tonumber(p[2]) > 0 then redis.call('LTRIM', KEYS[3], p[2], -1) end
local mail = redis.call('LRANGE', KEYS[3], 0, -1)
redis.call('RENAME', KEYS[2], KEYS[4])
redis.call('PEXPIRE', KEYS[4], ARGV[3])
if #mail > 0 then
  redis.call('RENAME', KEYS[3], KEYS[5])
  redis.call('PEXPIRE', KEYS[5], ARGV[3])
end
wake(ARGV[5], p[5], ARGV[6])
return {'done', json, p[1], mail}
