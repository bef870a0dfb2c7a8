-- A worker's batch for applications: what clients did. All of it in one step, and only once.
-- KEYS: the worker's batch
-- ARGV: 1 batch number, 2 prefix, 3 most records of a partition, 4 how long the batch is remembered (ms),
--       5 how long a socket is remembered without a sign of life (ms), then units: kind, partition or number of a process,
--       sid, in how many ms it is looked after (or 0), how many fields and values follow, these.
-- Kinds: hello (sid is of the Engine.IO session; `e` what is told of its handshake, kept for the time that stands in the place of
--        when it is looked after), connect (fields `e` environ, `a` auth go to the socket), event, leave (`d` the reason), answer (to a process),
--        touch (the socket lives)
-- Answer: `<batch> <a letter for each unit>`: o done, x full, n nothing to be done
-- What is told of a handshake is kept this long at least, after a worker looked after one of its sockets.
local ASK_MS = 60000
local now, call, P = now_ms(), redis.call, ARGV[2]
local latest = call('GET', KEYS[1])
if latest then
  local batch = tonumber(string.match(latest, '^%d+'))
  if batch == tonumber(ARGV[1]) then return latest end
  if batch > tonumber(ARGV[1]) then return redis.error_reply('STALE batch') end
end
local said, room_left, i = {}, {}, 6
while i <= #ARGV do
  local kind, p, sid, due, n = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local first, last = i + 5, i + 4 + n
  i = last + 1
  local word = 'o'
  if kind == 'hello' then
    call('SET', P .. 'ask:' .. sid, ARGV[first + 1], 'PX', due)
  elseif kind == 'leave' then
    if not depart(P, sid, ARGV[first + 1]) then word = 'n' end
  elseif kind == 'touch' then
    if call('PEXPIRE', sock_of(P, sid), ARGV[5]) == 0 then word = 'n' else
      call('PEXPIRE', in_of(P, sid), ARGV[5])
      call('PEXPIRE', P .. 'ask:' .. (call('HGET', sock_of(P, sid), 'session') or ''), int(4 * due + ASK_MS))
      call('ZADD', P .. 'members', 'XX', int(now + due), sid)
    end
  elseif kind == 'answer' then
    if call('EXISTS', control_of(P, p)) == 0 then word = 'n' else
      call('XADD', control_of(P, p), 'MAXLEN', '~', CONTROL_MAX, '*', 's', sid, unpack(ARGV, first, last))
    end
  else
    local left = room_left[p]
    if not left then left = ARGV[3] - call('XLEN', inbox_of(P, p)) end
    if left < 1 then word = 'x' else
      room_left[p] = left - 1
      local told
      local head = {inbox_of(P, p), '*', 'o', epoch_of_owner(P, p), 'k', kind, 's', sid}
      if kind == 'connect' then
        local sock = {sock_of(P, sid), 'p', p, 'state', 'pending'}
        for at = first, last, 2 do
          if ARGV[at] == 'session' then told = call('GET', P .. 'ask:' .. ARGV[at + 1]) end
          sock[#sock + 1], sock[#sock + 2] = ARGV[at], ARGV[at + 1]
          if ARGV[at] == 'n' then head[#head + 1], head[#head + 2] = 'n', ARGV[at + 1] end
        end
        if told then sock[#sock + 1], sock[#sock + 2] = 'e', told end
        call('HSET', unpack(sock))
        call('PEXPIRE', sock_of(P, sid), ARGV[5])
        call('ZADD', P .. 'members', int(now + due), sid)
      else
        for at = first, last do head[#head + 1] = ARGV[at] end
      end
      call('XADD', unpack(head))
    end
  end
  said[#said + 1] = word
end
local answer = ARGV[1] .. ' ' .. table.concat(said)
call('SET', KEYS[1], answer, 'PX', ARGV[4])
return answer
