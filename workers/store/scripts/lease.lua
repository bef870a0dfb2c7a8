-- Leases: `<incarnation> <request>` in one field, its deadline (ms) in another. Behind the request stands the id
-- that came with it, if one did: a proxy that repeats a request repeats that as well.

-- The epoch that a record's JSON begins with.
local function epoch_of(json)
  return string.match(json, '^{"v":%d+,"epoch":(%d+)')
end

local function incarnation(lease)
  return string.match(lease, '^%S+')
end

-- Whether a request holds it: set, in time, and its worker not declared dead. `given` is the longest that such a lease is
-- given (ms): one with more left is of a clock that was set back, and would outlive its holder by as much.
local function held(lease, deadline, now, dead, given)
  if not lease or lease == '' then return false end
  local left = (tonumber(deadline) or 0) - now
  if left <= 0 or left > (tonumber(given) or math.huge) then return false end
  return redis.call('EXISTS', dead .. incarnation(lease)) == 0
end

-- The id that a request came with.
local function id_of(lease)
  return lease and string.match(lease, '^%S+ %S+ (%S+)$')
end

-- Whether that id tells a request from all others. A client of which every request has the same (a token under the same
-- name) has it in its handshake too (`first`, a list), or in a request of the other kind.
local function telling(mine, first, ...)
  local id = id_of(mine)
  if not id or string.find(' ' .. (first or '') .. ' ', ' ' .. id .. ' ', 1, true) then return false end
  for _, other in ipairs({...}) do
    if id_of(other) == id then return false end
  end
  return true
end

-- Whether a lease is of the request `mine`, sent once or repeated; `told`: whether its id is telling.
local function same(lease, mine, told)
  if not lease or lease == mine then return lease == mine end
  return told and id_of(lease) == id_of(mine)
end

-- `ar` is the last request answered, and whether a ping was in it.
local function answered_of(ar)
  return string.match(ar or '', '^(.+) (%d)$')
end

-- Tells the worker of a parked poll to look again.
local function wake(channel, lease, sid)
  if lease and lease ~= '' then redis.call('PUBLISH', channel .. incarnation(lease), sid) end
end

-- An offset `<epoch>-<seq>` is later than another.
local function later(a, b)
  local ae, as = string.match(a, '^(%d+)-(%d+)$')
  local be, bs = string.match(b, '^(%d+)-(%d+)$')
  ae, be = tonumber(ae), tonumber(be)
  if ae ~= be then return ae > be end
  return tonumber(as) > tonumber(bs)
end
