-- Stores what a POST led to: one that has begun (post_begin), or a whole one of a worker that knows the record.
-- KEYS: session, poll, mail
-- ARGV: 1 me and request, 2 epoch of the record, 3 json or '', 4 pong (0|1), 5 ping interval ms, 6 liveness ms,
--       7 most items of mail, 8 most bytes of mail, 9 wake channel, 10 sid, 11 ttl of the record ms,
--       12 position that the cursor goes back to or '', 13 revision of the record that a whole POST knows or '',
--       14 dead key prefix, 15 lease of a POST ms, 16 whether the session lives on from now (0|1), 17… mail
local now, whole = now_ms(), ARGV[13] ~= ''
if redis.call('EXISTS', KEYS[1]) == 0 then return whole and 'behind' or 'gone' end
local p = redis.call('HMGET', KEYS[2], 'cur', 'post', 'done', 'get', 'bytes', 'sent', 'rev', 'postd', 'first', 'ar')
if not p[1] then return whole and 'behind' or 'gone' end
local revision = p[7]
if p[3] == ARGV[1] then return 'done ' .. revision end
local told = telling(ARGV[1], p[9], p[4], (answered_of(p[10])))
if same(p[3], ARGV[1], told) then return 'repeated' end
if whole then
  if revision ~= ARGV[13] or held(p[2], p[8], now, ARGV[14], ARGV[15]) or same(p[2], ARGV[1], told) then return 'behind' end
elseif p[2] ~= ARGV[1] then
  return 'gone'
end
local set = {'post', '', 'done', ARGV[1]}
local anything = ARGV[4] == '1'
if ARGV[3] ~= '' then
  local epoch = epoch_of(redis.call('GET', KEYS[1]))
  if epoch ~= ARGV[2] then
    redis.call('HSET', KEYS[2], 'post', '')
    return 'fenced ' .. epoch
  end
end
if #ARGV > 16 then
  local bytes = tonumber(p[5]) or 0
  for i = 17, #ARGV do bytes = bytes + #ARGV[i] end
  if bytes > tonumber(ARGV[8]) or redis.call('LLEN', KEYS[3]) + #ARGV - 16 > tonumber(ARGV[7]) then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    wake(ARGV[9], p[4], ARGV[10])
    return 'full'
  end
  redis.call('RPUSH', KEYS[3], unpack(ARGV, 17))
  set[#set + 1] = 'bytes'
  set[#set + 1] = int(bytes)
  anything = true
end
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
  revision = redis.call('HINCRBY', KEYS[2], 'rev', 1)
  anything = true
end
if ARGV[12] ~= '' then
  -- A resumed session: what it missed is read from the log once more, by its own position.
  if later(p[1], ARGV[12]) then
    set[#set + 1] = 'cur'
    set[#set + 1] = ARGV[12]
  end
  if later(p[6], ARGV[12]) then
    set[#set + 1] = 'sent'
    set[#set + 1] = ARGV[12]
  end
  anything = true
end
local ttl = redis.call('PTTL', KEYS[2])
if ARGV[4] == '1' then
  set[#set + 1] = 'ping'
  set[#set + 1] = int(now + ARGV[5])
end
if ARGV[16] == '1' then
  ttl = ARGV[6]
  redis.call('PEXPIRE', KEYS[1], ARGV[11])
  redis.call('PEXPIRE', KEYS[2], ttl)
end
redis.call('HSET', KEYS[2], unpack(set))
if anything then
  if tonumber(ttl) > 0 then redis.call('PEXPIRE', KEYS[3], ttl) end
  wake(ARGV[9], p[4], ARGV[10])
end
return 'done ' .. revision
