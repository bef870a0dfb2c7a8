-- What a process of the application wants done: a batch of operations in their order, in one step, once.
-- KEYS: log meta, log stream, log sizes, link
-- ARGV: 1 batch number, 2 me, 3 4 known position of the log, then operations: kind, partition, epoch, how many arguments follow,
--       these. An operation with a partition is done only while that is mine at that epoch; '' is not checked.
-- Kinds and arguments:
--   emit     namespace, rooms (JSON), except (JSON), dedupe id or '', packet, attachments…
--   ask      namespace, rooms (JSON), except (JSON), packet with an ack id, attachments…
--   ack      namespace, sid, dedupe id or '', packet, attachments…
--   admit    sid             refuse  sid, JSON of the error
--   join     sid, room       leave   sid, room      close  namespace, room
--   kick     sid             save    sid, field, value     forget  sid
--   settle   record, or record and `1` if it was counted      dead    record, why
--   try      record: counts an attempt; its letter is the digit of how many there are, 9 at most
-- Answer: `<batch> <epoch> <first seq> <a letter for each operation>`: o done, d a duplicate, f not mine, g no such socket,
--         n nothing to be done, u an unknown kind; and of a batch that was pushed ` <readers>`
local call = redis.call
local number, me = ARGV[1], ARGV[2]
local field = 'app-' .. me
if redis.replicate_commands then redis.replicate_commands() end
local link = call('HMGET', KEYS[4], 'prefix', 'log_entries_max', 'log_bytes_max', 'log_channel', 'dedupe_ms', 'dead_max')
local P, entries_max, bytes_max, channel, dedupe_ms, dead_max = link[1], link[2], link[3], link[4], link[5], link[6]
if not P then return redis.error_reply('UNLINKED no gateway has published the link') end
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', field)
local epoch, seq, latest = meta[1], tonumber(meta[2]), meta[3]
if epoch ~= ARGV[3] or not seq or seq < tonumber(ARGV[4]) then
  local head = log_functions()
  epoch, seq, latest = head(ARGV[3], ARGV[4], field)
  epoch = string.format('%.0f', epoch)
end
if latest then
  local batch = tonumber(string.match(latest, '^%d+'))
  if batch == tonumber(number) then return latest end
  if batch > tonumber(number) then return redis.error_reply('STALE batch') end
end

local list, sizes = {}, {}
-- An entry, as `session::Entry` writes it. `rooms` and `except` are JSON already.
local function log(kind, nsp, rooms, except, text, from, upto)
  local attached = {}
  for at = from or 1, upto or 0 do attached[#attached + 1] = #ARGV[at] end
  local head = {'{"k":"', kind, '"'}
  if nsp ~= '/' then head[#head + 1] = ',"n":' .. cjson.encode(nsp) end
  if rooms ~= '[]' then head[#head + 1] = ',"r":' .. rooms end
  if except ~= '[]' then head[#head + 1] = ',"x":' .. except end
  if #attached > 0 then head[#head + 1] = ',"a":[' .. table.concat(attached, ',') .. ']' end
  head[#head + 1] = '}\n'
  head[#head + 1] = text
  for at = from or 1, upto or 0 do head[#head + 1] = ARGV[at] end
  local entry = table.concat(head)
  list[#list + 1], sizes[#sizes + 1] = entry, #entry
end
local function to(sid) return '["' .. sid .. '"]' end

local owners = {}
local function owns(p, at)
  if p == '' then return true end
  local owner = owners[p]
  if owner == nil then
    owner = call('HGET', P .. 'owner', p) or ''
    owners[p] = owner
  end
  local who, mine = string.match(owner, '^(%S+) (%d+)')
  return who == me and mine == at
end
local function is_new(id) return id == '' or call('SET', P .. 'done:' .. id, '1', 'NX', 'PX', dedupe_ms) end
local function nsp_of(sid)
  local sock = call('HMGET', sock_of(P, sid), 'n', 'state')
  return sock[1], sock[2]
end
local function leave_all(sid, nsp)
  for _, room in ipairs(call('SMEMBERS', in_of(P, sid))) do call('SREM', room_of(P, nsp, room), sid) end
  call('DEL', in_of(P, sid))
end

local does = {}
function does.emit(a, upto)
  if not is_new(ARGV[a + 3]) then return 'd' end
  log('emit', ARGV[a], ARGV[a + 1], ARGV[a + 2], '4' .. ARGV[a + 4], a + 5, upto)
end
-- It wants an ack, so it is not replayed: a client would answer twice.
function does.ask(a, upto)
  log('ack', ARGV[a], ARGV[a + 1], ARGV[a + 2], '4' .. ARGV[a + 3], a + 4, upto)
end
function does.ack(a, upto)
  if not is_new(ARGV[a + 2]) then return 'd' end
  log('ack', ARGV[a], to(ARGV[a + 1]), '[]', '4' .. ARGV[a + 3], a + 4, upto)
end
function does.admit(a)
  local nsp, state = nsp_of(ARGV[a])
  if not nsp or state == 'gone' then return 'g' end
  if state ~= 'pending' then return 'd' end
  call('HSET', sock_of(P, ARGV[a]), 'state', 'in')
  log('admit', nsp, to(ARGV[a]), '[]', '')
end
function does.refuse(a)
  local nsp, state = nsp_of(ARGV[a])
  if not nsp then return 'g' end
  if state == 'pending' then log('refuse', nsp, to(ARGV[a]), '[]', ARGV[a + 1])
  -- It was let in before it was asked about (`always_connect`).
  elseif state == 'in' then log('disconnect', nsp, to(ARGV[a]), '[]', 'false') end
  leave_all(ARGV[a], nsp)
  call('ZREM', P .. 'members', ARGV[a])
  call('DEL', sock_of(P, ARGV[a]))
end
function does.join(a)
  local sid, room = ARGV[a], ARGV[a + 1]
  local nsp, state = nsp_of(sid)
  if not nsp or state == 'gone' then return 'g' end
  if call('SADD', in_of(P, sid), room) == 0 then return 'n' end
  call('SADD', room_of(P, nsp, room), sid)
  log('join', nsp, to(sid), '[]', cjson.encode({room}))
end
function does.leave(a)
  local sid, room = ARGV[a], ARGV[a + 1]
  local nsp = nsp_of(sid)
  if not nsp or call('SREM', in_of(P, sid), room) == 0 then return 'n' end
  call('SREM', room_of(P, nsp, room), sid)
  log('leave', nsp, to(sid), '[]', cjson.encode({room}))
end
function does.close(a)
  local nsp, room = ARGV[a], ARGV[a + 1]
  local key = room_of(P, nsp, room)
  for _, sid in ipairs(call('SMEMBERS', key)) do call('SREM', in_of(P, sid), room) end
  if call('DEL', key) == 0 then return 'n' end
  log('leave', nsp, cjson.encode({room}), '[]', cjson.encode({room}))
end
function does.kick(a)
  local nsp, state = nsp_of(ARGV[a])
  if not nsp or not depart(P, ARGV[a], 'server disconnect') then return 'n' end
  log('disconnect', nsp, to(ARGV[a]), '[]', 'false')
end
function does.save(a)
  if call('EXISTS', sock_of(P, ARGV[a])) == 0 then return 'g' end
  call('HSET', sock_of(P, ARGV[a]), ARGV[a + 1], ARGV[a + 2])
end
function does.forget(a)
  local nsp = nsp_of(ARGV[a])
  if not nsp then return 'n' end
  leave_all(ARGV[a], nsp)
  call('ZREM', P .. 'members', ARGV[a])
  call('DEL', sock_of(P, ARGV[a]))
end
function does.settle(a, upto, p)
  if ARGV[a + 1] == '1' and upto > a then call('HDEL', P .. 'tries:' .. p, ARGV[a]) end
  if call('XDEL', inbox_of(P, p), ARGV[a]) == 0 then return 'n' end
end
does['try'] = function(a, _, p)
  return tostring(math.min(9, call('HINCRBY', P .. 'tries:' .. p, ARGV[a], 1)))
end
function does.dead(a, _, p)
  local item = call('XRANGE', inbox_of(P, p), ARGV[a], ARGV[a])[1]
  if not item then return 'n' end
  call('XADD', P .. 'dead', 'MAXLEN', '~', dead_max, '*', 'p', p, 'id', ARGV[a], 'why', ARGV[a + 1], unpack(item[2]))
  call('XDEL', inbox_of(P, p), ARGV[a])
  call('HDEL', P .. 'tries:' .. p, ARGV[a])
end

local words, i = {}, 5
while i <= #ARGV do
  local kind, p, at, n = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local word
  if not does[kind] then word = 'u'
  elseif not owns(p, at) then word = 'f'
  else word = does[kind](i + 4, i + 3 + n, p) or 'o' end
  words[#words + 1] = word
  i = i + 4 + n
end
local count, lengths, entries = #list, table.concat(sizes, ','), table.concat(list)
local first = seq + 1
local first_s = string.format('%.0f', first)
local answer = number .. ' ' .. epoch .. ' ' .. first_s .. ' ' .. table.concat(words)
-- Bytes are counted as workers do it: a sixteenth of the log at a time.
local size = ''
if count > 0 then
  local uncounted = call('HINCRBY', P .. 'counts', 'log_bytes', #entries)
  if uncounted >= bytes_max / 16 then
    call('HSET', P .. 'counts', 'log_bytes', 0)
    size = bytes_max .. ' ' .. string.format('%.0f', uncounted - #entries)
  end
end
