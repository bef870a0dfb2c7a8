-- Names under the prefix of the application link, and what its scripts share. A sid and a number hold no separator; a
-- namespace does, so it is escaped where a room follows it.
local function escaped(name) return (string.gsub(name, '[\\|]', '\\%0')) end
local function inbox_of(P, p) return P .. 'inbox:' .. p end
local function control_of(P, number) return P .. 'inbox:@' .. number end
local function sock_of(P, sid) return P .. 'sock:' .. sid end
local function in_of(P, sid) return P .. 'in:' .. sid end
local function room_of(P, nsp, room) return P .. 'room:' .. escaped(nsp) .. '|' .. room end
-- Most messages for one process that waits for none of them.
local CONTROL_MAX = 10000
-- The epoch of a partition's owner, `0` before its first one.
local function epoch_of_owner(P, p)
  local owner = redis.call('HGET', P .. 'owner', p)
  return owner and string.match(owner, '^%S+ (%d+)') or '0'
end
-- The membership is over: its disconnect is a record, once. `was` is `pending` if the application had not let it in.
local function depart(P, sid, reason)
  local sock = redis.call('HMGET', sock_of(P, sid), 'n', 'p', 'state')
  if not sock[1] or sock[3] == 'gone' then return false end
  redis.call('HSET', sock_of(P, sid), 'state', 'gone', 'was', sock[3])
  redis.call('ZREM', P .. 'members', sid)
  redis.call('XADD', inbox_of(P, sock[2]), '*', 'o', epoch_of_owner(P, sock[2]), 'k', 'disconnect', 'n', sock[1], 's', sid, 'd', reason)
  return true
end
