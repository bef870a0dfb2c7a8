-- Goes before every script that asks for the time, which must be before its first write: only then
-- can Redis 6 be told to replicate effects instead of the script.
local function now_ms()
  if redis.replicate_commands then redis.replicate_commands() end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A key or a lease never has more time left than it was given, unless the clock was set back since, or an operator made the
-- key one that never expires (left < 0): then what it says is worth nothing.
local function is_overlong(left, given)
  return left < 0 or left > tonumber(given)
end

-- One string is read faster than an array: words, behind them the lengths of what follows the line.
local function pack(words, json, mail)
  local lengths = {#json}
  for i, item in ipairs(mail or {}) do lengths[i + 1] = #item end
  return words .. ' ' .. table.concat(lengths, ',') .. '\n' .. json .. table.concat(mail or {})
end

-- Numbers in full: Lua's tostring keeps 14 digits only.
local function int(n)
  return string.format('%.0f', n)
end
