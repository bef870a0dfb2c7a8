-- Which process owns which partition. One call a second from each process; the clock is Redis'.
-- KEYS: owner, processes, link
-- ARGV: 1 me (`<number>-<token>`), 2 `run`, `drain` (takes nothing, still lives) or `end`, 3 a name for operators,
--       then the partitions that are given back
-- Answer: known position of the log, then `<partition> <epoch>` of those that are mine, with `-` before it those to be given back
local now = now_ms()
local call = redis.call
local link = call('HMGET', KEYS[3], 'prefix', 'partitions', 'lease_ms', 'log_meta')
if not link[1] then return redis.error_reply('UNLINKED no gateway has published the link') end
local P, parts, ttl = link[1], tonumber(link[2]), tonumber(link[3])
local me, how, freed = ARGV[1], ARGV[2], false
local number = string.match(me, '^%d+')
if how == 'end' then
  call('ZREM', KEYS[2], me)
  call('HDEL', P .. 'names', me)
  call('DEL', control_of(P, number))
else
  call('ZADD', KEYS[2], int(now), me)
  call('HSET', P .. 'names', me, how .. ' ' .. ARGV[3])
  -- There as long as the process: a worker writes answers to it only if it is.
  if call('EXISTS', control_of(P, number)) == 0 then call('XADD', control_of(P, number), '*', 'k', 'wake') end
  call('PEXPIRE', control_of(P, number), int(ttl * 10))
end
local function give(p, epoch)
  call('HSET', KEYS[1], p, '- ' .. epoch .. ' 0')
  freed = true
end
for i = 4, #ARGV do
  local who, epoch = string.match(call('HGET', KEYS[1], ARGV[i]) or '', '^(%S+) (%d+)')
  if who == me then give(ARGV[i], epoch) end
end
for _, dead in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', int(now - ttl))) do
  call('ZREM', KEYS[2], dead)
  call('HDEL', P .. 'names', dead)
end
local names = call('ZRANGE', KEYS[2], 0, -1)
local lives, takers = {}, 0
for _, name in ipairs(names) do lives[name] = true end
for _, name in ipairs(names) do
  if string.sub(call('HGET', P .. 'names', name) or '', 1, 6) ~= 'drain ' then takers = takers + 1 end
end
local most = how == 'run' and math.ceil(parts / math.max(1, takers)) or 0
local mine, free, out = {}, {}, {}
local owners = {}
local flat = call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do owners[flat[i]] = flat[i + 1] end
for p = 0, parts - 1 do
  local who, epoch, until_ms = string.match(owners[tostring(p)] or '- 0 0', '^(%S+) (%d+) (%d+)')
  if who == me and how == 'end' then
    give(p, epoch)
  elseif who == me then
    call('HSET', KEYS[1], p, me .. ' ' .. epoch .. ' ' .. int(now + ttl))
    mine[#mine + 1] = p .. ' ' .. epoch
  elseif who == '-' or tonumber(until_ms) < now or not lives[who] then
    free[#free + 1] = {p, epoch}
  end
end
for at, line in ipairs(mine) do out[at] = at <= most and line or '-' .. line end
for _, found in ipairs(free) do
  if #out >= most then break end
  local epoch = int(found[2] + 1)
  call('HSET', KEYS[1], found[1], me .. ' ' .. epoch .. ' ' .. int(now + ttl))
  out[#out + 1] = found[1] .. ' ' .. epoch
end
if freed then
  for _, name in ipairs(names) do
    if name ~= me then
      local control = control_of(P, string.match(name, '^%d+'))
      if call('EXISTS', control) == 1 then call('XADD', control, 'MAXLEN', '~', CONTROL_MAX, '*', 'k', 'wake') end
    end
  end
end
local head = call('HMGET', link[4], 'epoch', 'seq')
table.insert(out, 1, (head[1] or '0') .. ' ' .. (head[2] or '0'))
return out
