-- A step of a poll.
-- KEYS: session, poll, mail
-- ARGV: 1 me and request, 2 mode (begin|wake|answer|ping), 3 head, 4 known revision or '',
--       5 dead key prefix, 6 ping interval ms, 7 liveness ms, 8 whether the holder lives, or was given time (0|1)
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -2 then return 'unknown' end
local p = redis.call('HMGET', KEYS[2], 'cur', 'sent', 'n', 'ping', 'get', 'getd', 'up', 'upd', 'probed', 'ar', 'rev',
  'bytes', 'sentbytes', 'first', 'done', 'post', 'upt')
local cur, sent, n, ping, get, getd = p[1], p[2], tonumber(p[3]), p[4], p[5], p[6]
if not cur then return pack('moved', redis.call('GET', KEYS[1])) end
local now = now_ms() -- before the first write
-- The session lives as long as its poll state; its record may be kept for longer, to be resumed.
ttl = redis.call('PTTL', KEYS[2])
if ttl > tonumber(ARGV[7]) then redis.call('PEXPIRE', KEYS[2], ARGV[7]) end -- the clock was set back
if is_overlong(ttl, ARGV[7]) then ttl = tonumber(ARGV[7]) end -- or an operator's PERSIST
local mine = ARGV[1]
local bytes = tonumber(p[12]) or 0
local changed = {}
local function set(field, value)
  changed[#changed + 1] = field
  changed[#changed + 1] = value
end

-- The same request again gets the same again, and proves no receipt.
local told = telling(mine, p[14], p[15], p[16])
local answered, pinged = answered_of(p[10])
local again = same(answered, mine, told)

if ARGV[2] ~= 'begin' then
  if get ~= mine and answered ~= mine then return 'lost' end
elseif not same(get, mine, told) then
  if held(get, getd, now, ARGV[5], ARGV[7]) then
    -- Another worker's lease: it may have died this very moment, without being declared dead yet.
    if ARGV[8] == '0' and incarnation(get) ~= incarnation(mine) then return 'held ' .. incarnation(get) end
    return 'overlap'
  end
  if not again then
    if sent ~= cur then
      cur = sent
      set('cur', cur)
    end
    if n > 0 then
      redis.call('LTRIM', KEYS[3], n, -1)
      n = 0
      set('n', 0)
      bytes = bytes - (tonumber(p[13]) or 0)
      set('bytes', int(bytes))
    end
  end
end

local json = ''
if p[11] ~= ARGV[4] then json = redis.call('GET', KEYS[1]) end
-- A ping too early is harmless; one that waits for a clock that was set back comes too late for the client.
local due = ping ~= '' and (ARGV[2] == 'ping' or tonumber(ping) <= now or tonumber(ping) - now > tonumber(ARGV[6]))
local noop = p[9] == '1' and held(p[7], p[8], now, ARGV[5], p[17])
local waiting = redis.call('LLEN', KEYS[3])

if ARGV[2] == 'answer' or ARGV[2] == 'ping' or again or waiting > 0 or due or noop then
  local upto = cur
  if later(ARGV[3], cur) then upto = ARGV[3] end
  due = due or (again and pinged == '1')
  set('sent', upto)
  set('n', waiting)
  set('sentbytes', int(bytes))
  set('ar', mine .. (due and ' 1' or ' 0'))
  set('get', '')
  if due then set('ping', '') end
  redis.call('HSET', KEYS[2], unpack(changed))
  local mail = {}
  if waiting > 0 then mail = redis.call('LRANGE', KEYS[3], 0, -1) end
  local words = 'answer ' .. p[11] .. ' ' .. cur .. ' ' .. upto .. (due and ' 1' or ' 0') .. (noop and ' 1' or ' 0')
  return pack(words, json, mail)
end

set('get', mine)
set('getd', int(now + ttl))
redis.call('HSET', KEYS[2], unpack(changed))
local ping_in = -1
if ping ~= '' then ping_in = tonumber(ping) - now end
return pack('parked ' .. p[11] .. ' ' .. cur .. ' ' .. int(ping_in) .. ' ' .. int(ttl), json)
