-- Sends a canary unless another worker just did (a worker sends its first one in any case), trims what is too old, and forgets
-- writers that are as old.
-- KEYS: meta, stream, sizes, lock, marks
-- ARGV: 1 2 known position, 3 lock ms, 4 channel, 5 me and number, 6 age ms, 7 whether it is the first
-- Answer: the time (ms), and the bytes of entries in the log, to a mark
-- A longer time between two marks is none in which the fleet lived: so many locks, and so many ms at least.
local GAP_LOCKS, GAP_MS = 4, 5000
local now = now_ms()
local function size()
  local sums = redis.call('HMGET', KEYS[1], 'bytes', 'trimmed')
  local bytes = tonumber(sums[1]) or 0
  return math.max(0, bytes - (tonumber(sums[2]) or 0)), bytes
end
local function answer()
  return {now, (size())}
end
-- Before anything is read: a Redis that takes no writes says so, whichever worker's turn it is.
if ARGV[7] == '1' then
  redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[3])
elseif not redis.call('SET', KEYS[4], ARGV[5], 'NX', 'PX', ARGV[3]) then
  if not is_overlong(redis.call('PTTL', KEYS[4]), ARGV[3]) then return answer() end
  redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[3])
end
local epoch, seq = head(ARGV[1], ARGV[2], 'seq')
redis.call('PUBLISH', ARGV[4], 'c ' .. int(epoch) .. ' ' .. int(seq) .. ' ' .. ARGV[5] .. '\n')

-- So that what is trimmed by age or number is known in bytes as well.
local _, bytes = size()
if bytes > 0 then mark(int(epoch), int(seq), bytes) end

-- Marks are `<time> <epoch> <seq>`: where the head was, and when. Between two of them there are a few canaries' time; if the
-- clock says otherwise it was set, or no worker was there to send one: then the old ones tell no age, and begin anew.
local last = tonumber(string.match(redis.call('LINDEX', KEYS[5], -1) or '', '^%d+'))
local since = last and now - last or 0
if since < 0 or since > math.max(GAP_MS, GAP_LOCKS * ARGV[3]) then redis.call('DEL', KEYS[5]) end
redis.call('RPUSH', KEYS[5], int(now) .. ' ' .. int(epoch) .. ' ' .. int(seq))
local old_epoch, old_seq
while true do
  local mark = redis.call('LINDEX', KEYS[5], 0)
  local time, mark_epoch, mark_seq = string.match(mark or '', '^(%d+) (%d+) (%d+)$')
  if time and tonumber(time) > now - tonumber(ARGV[6]) then break end
  if not mark then break end
  redis.call('LPOP', KEYS[5])
  old_epoch, old_seq = tonumber(mark_epoch), tonumber(mark_seq)
end
if not old_epoch then return answer() end
trim(old_epoch, old_seq)

-- The other fields of the meta are writers, with their latest batch.
local meta = redis.call('HGETALL', KEYS[1])
for i = 1, #meta, 2 do
  local batch_epoch, first = string.match(meta[i + 1], '^%d+ (%d+) (%d+) ')
  batch_epoch, first = tonumber(batch_epoch), tonumber(first)
  if first and (batch_epoch < old_epoch or (batch_epoch == old_epoch and first <= old_seq)) then
    redis.call('HDEL', KEYS[1], meta[i])
  end
end
return answer()
