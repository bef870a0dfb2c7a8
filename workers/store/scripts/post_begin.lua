-- A POST has arrived.
-- KEYS: session, poll
-- ARGV: 1 me and request, 2 known revision or '', 3 lease ms, 4 dead key prefix,
--       5 whether the holder lives, or was given time (0|1)
if redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
local p = redis.call('HMGET', KEYS[2], 'sent', 'post', 'postd', 'get', 'rev', 'done', 'first', 'ar')
if not p[1] then return pack('moved', redis.call('GET', KEYS[1])) end
local now = now_ms()
local told = telling(ARGV[1], p[7], p[4], (answered_of(p[8])))
if p[6] ~= ARGV[1] and same(p[6], ARGV[1], told) then return 'repeated' end
if p[2] ~= ARGV[1] and same(p[2], ARGV[1], told) then
  -- The first one is under way, or its worker died in the middle: then its outcome is unknown.
  if ARGV[5] == '0' and held(p[2], p[3], now, ARGV[4], ARGV[3]) then return 'underway' end
  return 'broken'
end
if p[2] ~= ARGV[1] and held(p[2], p[3], now, ARGV[4], ARGV[3]) then
  -- Another worker's lease: it may have died this very moment, without being declared dead yet.
  if ARGV[5] == '0' and incarnation(p[2]) ~= incarnation(ARGV[1]) then return 'held ' .. incarnation(p[2]) end
  return 'overlap'
end
redis.call('HSET', KEYS[2], 'post', ARGV[1], 'postd', int(now + ARGV[3]))
local json = ''
if p[5] ~= ARGV[2] then json = redis.call('GET', KEYS[1]) end
local parked = held(p[4], now + 1, now, ARGV[4]) and 1 or 0
return pack('go ' .. p[5] .. ' ' .. p[1] .. ' ' .. parked, json)
