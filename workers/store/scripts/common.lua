-- Goes before every script that asks for the time: Redis 6 needs effects replication for that.
if redis.replicate_commands then redis.replicate_commands() end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Numbers in full: Lua's tostring keeps 14 digits only.
local function int(n)
  return string.format('%.0f', n)
end
