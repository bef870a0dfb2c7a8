-- Sends a canary unless somebody just did (a worker sends its first one in any case), trims what is too old, and forgets
-- writers that are as old.
-- KEYS: meta, stream, lock, marks
-- ARGV: 1 2 known position, 3 lock ms, 4 channel, 5 me and number, 6 age ms, 7 whether it is the first
-- Answer: the time (ms)
-- A longer time between two marks is none in which the fleet lived: so many locks, and so many ms at least.
local GAP_LOCKS, GAP_MS = 4, 5000
local now = now_ms()
-- Before anything is read: a Redis that takes no writes says so, whoever's turn it is.
if ARGV[7] == '1' then
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[3])
elseif not redis.call('SET', KEYS[3], ARGV[5], 'NX', 'PX', ARGV[3]) then
  if not is_overlong(redis.call('PTTL', KEYS[3]), ARGV[3]) then return now end
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[3])
end
local epoch, seq = head(ARGV[1], ARGV[2], 'seq')
redis.call('PUBLISH', ARGV[4], 'c ' .. int(epoch) .. ' ' .. int(seq) .. ' ' .. ARGV[5] .. '\n')

-- Marks are `<time> <epoch> <seq>`: where the head was, and when. Between two of them there are a few canaries' time; if the
-- clock says otherwise it was set, or nobody was there to send one: then the old ones tell no age, and begin anew.
local last = tonumber(string.match(redis.call('LINDEX', KEYS[4], -1) or '', '^%d+'))
local since = last and now - last or 0
if since < 0 or since > math.max(GAP_MS, GAP_LOCKS * ARGV[3]) then redis.call('DEL', KEYS[4]) end
redis.call('RPUSH', KEYS[4], int(now) .. ' ' .. int(epoch) .. ' ' .. int(seq))
local old_epoch, old_seq
while true do
  local mark = redis.call('LINDEX', KEYS[4], 0)
  local time, mark_epoch, mark_seq = string.match(mark or '', '^(%d+) (%d+) (%d+)$')
  if time and tonumber(time) > now - tonumber(ARGV[6]) then break end
  if not mark then break end
  redis.call('LPOP', KEYS[4])
  old_epoch, old_seq = tonumber(mark_epoch), tonumber(mark_seq)
end
if not old_epoch then return now end
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
return now
