-- Leases: `<incarnation> <request>` in one field, its deadline (ms) in another. Behind the request stands the id
-- that came with it, if one did: a proxy that repeats a request repeats that as well.

-- The epoch that a record's JSON begins with.
local function epoch_of(json)
  return string.match(json, '^{"v":%d+,"epoch":(%d+)')
end

local function incarnation(lease)
  return string.match(lease, '^%S+')
end

-- Whether somebody holds it: set, in time, and its worker not declared dead.
local function held(lease, deadline, now, dead)
  if not lease or lease == '' or (tonumber(deadline) or 0) <= now then return false end
  return redis.call('EXISTS', dead .. incarnation(lease)) == 0
end

-- Whether two leases are of the same request, sent once or repeated.
local function same(a, b)
  if not a or a == b then return a == b end
  local id = string.match(b, '^%S+ %S+ (%S+)$')
  return id ~= nil and string.match(a, '^%S+ %S+ (%S+)$') == id
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
