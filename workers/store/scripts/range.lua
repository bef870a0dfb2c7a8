-- Reads batches of the log, in order, until their entries have so many bytes: one at least.
-- KEYS: stream
-- ARGV: 1 first id, 2 last id, 3 bytes, 4 most batches
-- Answer: whether there is nothing further up to the last id (1 or 0), then the batches as XRANGE tells them

-- Batches read at a time: what is read in vain, behind the last one that fits, is bounded by it.
local STEP = 8
local from, bytes_max, most = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local answer, bytes = {0}, 0
while #answer <= most do
  local count = math.min(STEP, most + 1 - #answer)
  local batches = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', count)
  for _, batch in ipairs(batches) do
    local size = #batch[2][4]
    if bytes > 0 and bytes + size > bytes_max then return answer end
    bytes = bytes + size
    answer[#answer + 1] = batch
  end
  if #batches < count then
    answer[1] = 1
    return answer
  end
  local epoch, seq = string.match(batches[#batches][1], '^(%d+)-(%d+)$')
  from = epoch .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end
return answer
