-- Where the log is, for an operator. Writes nothing.
-- KEYS: meta, stream, marks
-- Answer: head, batches, id of the first batch, ms since the latest and since the oldest canary (-1: none)
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local head = (meta[1] or '0') .. '-' .. (meta[2] or '0')
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local now = now_ms()
local function age(at)
  local time = string.match(redis.call('LINDEX', KEYS[3], at) or '', '^%d+')
  return time and math.max(0, now - tonumber(time)) or -1
end
return {head, redis.call('XLEN', KEYS[2]), first[1] and first[1][1] or '0-0', age(-1), age(0)}
