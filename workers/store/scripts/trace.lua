-- A batch of notes about sessions was added: what is too old, or too much, goes. The notes themselves never come
-- through here, that would cost a hundred times as much.
-- KEYS: stream, list of `<id of an item> <bytes up to its end>`
-- ARGV: 1 id of the new item, 2 its bytes, 3 most bytes, 4 most ms
local last = redis.call('LINDEX', KEYS[2], -1)
local total = tonumber(ARGV[2])
if last then
  total = total + tonumber(string.match(last, '%d+$'))
else
  -- The list was evicted: the sizes of the other items are unknown. Other workers may be between the two steps.
  redis.call('XTRIM', KEYS[1], 'MAXLEN', 256)
end
redis.call('RPUSH', KEYS[2], ARGV[1] .. ' ' .. string.format('%.0f', total))
local too_old = tonumber(string.match(ARGV[1], '^%d+')) - tonumber(ARGV[4])
while true do
  local id, ms, bytes = string.match(redis.call('LINDEX', KEYS[2], 0), '^((%d+)%-%d+) (%d+)$')
  -- The newest stays.
  if id == ARGV[1] then break end
  if total - tonumber(bytes) < tonumber(ARGV[3]) and tonumber(ms) > too_old then break end
  redis.call('LPOP', KEYS[2])
  redis.call('XDEL', KEYS[1], id)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
