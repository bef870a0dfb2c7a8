-- Appends a batch: all of it or nothing, and only once.
-- KEYS: meta, stream, writer
-- ARGV: 1 batch number, 2 3 known position, 4 most entries of the log, 5 channel, 6 lengths `n,n,…`,
--       7 for how long the writer is remembered ms, 8 dedupe key prefix, 9 dedupe window ms,
--       10 number of dedupe ids, then index and id of each, then the entries
-- Answer: `<batch> <epoch> <first seq> <index>=<offset>;…` (the duplicates)
local number, channel, remember = ARGV[1], ARGV[5], ARGV[7]
local entries = ARGV
local stored = redis.call('GET', KEYS[3])
if stored then
  local batch = tonumber(string.match(stored, '^%d+'))
  if batch == tonumber(number) then return stored end
  if batch > tonumber(number) then return redis.error_reply('STALE batch') end
end
local epoch, seq = head(ARGV[2], ARGV[3])
local prefix = int(epoch) .. '-'
local first = int(seq + 1)
local ids = tonumber(ARGV[10])
local start = 11 + 2 * ids
local lengths, duplicates = ARGV[6], ''

if ids == 0 then
  for i = start, #ARGV do
    seq = seq + 1
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], prefix .. int(seq), 'e', ARGV[i])
  end
else
  local id_of, kept, sizes = {}, {}, {}
  for i = 11, start - 2, 2 do id_of[tonumber(ARGV[i])] = ARGV[i + 1] end
  for i = start, #ARGV do
    local offset, id, before = prefix .. int(seq + 1), id_of[i - start], false
    if id and not redis.call('SET', ARGV[8] .. id, offset, 'NX', 'PX', ARGV[9]) then
      before = redis.call('GET', ARGV[8] .. id)
    end
    if before then
      duplicates = duplicates .. (i - start) .. '=' .. before .. ';'
    else
      seq = seq + 1
      kept[#kept + 1] = ARGV[i]
      sizes[#sizes + 1] = #ARGV[i]
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], offset, 'e', ARGV[i])
    end
  end
  entries, start = kept, 1
  lengths = table.concat(sizes, ',')
end

local reply = number .. ' ' .. int(epoch) .. ' ' .. first .. ' ' .. duplicates
redis.call('SET', KEYS[3], reply, 'PX', remember)
if #entries >= start then
  redis.call('HSET', KEYS[1], 'seq', int(seq))
  redis.call('PUBLISH', channel,
    'e ' .. int(epoch) .. ' ' .. first .. ' ' .. lengths .. '\n' .. table.concat(entries, '', start))
end
return reply
