-- Sends a canary unless somebody just did, and trims what is too old.
-- KEYS: meta, stream, lock, marks
-- ARGV: 1 2 known position, 3 lock ms, 4 channel, 5 me and number, 6 age ms
local now = now_ms()
if not redis.call('SET', KEYS[3], ARGV[5], 'NX', 'PX', ARGV[3]) then return 0 end
local epoch, seq = head(ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[4], 'c ' .. int(epoch) .. ' ' .. int(seq) .. ' ' .. ARGV[5] .. '\n')

-- Marks are `<time> <epoch> <seq>`: where the head was, and when.
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
if old_epoch == epoch then redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', int(seq - old_seq)) end
return 1
