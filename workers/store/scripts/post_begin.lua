-- A POST has arrived.
-- KEYS: session, poll, mail
-- ARGV: 1 me and request, 2 known revision or '', 3 lease ms, 4 dead key prefix, 5 wake channel, 6 sid
if redis.call('EXISTS', KEYS[1]) == 0 then return {'unknown'} end
local p = redis.call('HMGET', KEYS[2], 'sent', 'post', 'postd', 'get', 'rev')
if not p[1] then return {'moved', redis.call('GET', KEYS[1])} end
local now = now_ms()
if p[2] ~= ARGV[1] and held(p[2], p[3], now, ARGV[4]) then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  wake(ARGV[5], p[4], ARGV[6])
  return {'overlap'}
end
redis.call('HSET', KEYS[2], 'post', ARGV[1], 'postd', int(now + ARGV[3]))
local json = ''
if p[5] ~= ARGV[2] then json = redis.call('GET', KEYS[1]) end
return {'go', json, p[5], p[1]}
