-- Appends a batch: all of it or nothing, and only once.
-- KEYS: meta, stream
-- ARGV: 1 batch number, 2 3 known position, 4 most entries of the log, 5 channel, 6 the worker's field in meta,
--       7 number of entries, 8 their lengths `n,n,…`, 9 the entries, one after the other,
--       10 dedupe key prefix, 11 dedupe window ms, then index and id of each entry that has one
-- Answer: `<batch> <epoch> <first seq> <index>=<offset>;…` (the duplicates), and of a batch that was pushed ` <readers>`
local number, field, count, lengths, entries = ARGV[1], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9]
local epoch, seq, latest = head(ARGV[2], ARGV[3], field)
if latest then
  local batch = tonumber(string.match(latest, '^%d+'))
  if batch == tonumber(number) then return latest end
  if batch > tonumber(number) then return redis.error_reply('STALE batch') end
end
local epoch_s, first_s = int(epoch), int(seq + 1)
local prefix, duplicates = epoch_s .. '-', ''
local first, most = seq + 1, tonumber(ARGV[4])

if #ARGV > 11 then
  local id_of, kept, sizes, from = {}, {}, {}, 1
  for i = 12, #ARGV, 2 do id_of[tonumber(ARGV[i])] = ARGV[i + 1] end
  local index = 0
  for length in string.gmatch(lengths, '%d+') do
    local offset, id, before = prefix .. int(first + #kept), id_of[index], false
    if id and not redis.call('SET', ARGV[10] .. id, offset, 'NX', 'PX', ARGV[11]) then
      before = redis.call('GET', ARGV[10] .. id)
    end
    if before then
      duplicates = duplicates .. index .. '=' .. before .. ';'
    else
      kept[#kept + 1] = string.sub(entries, from, from + length - 1)
      sizes[#sizes + 1] = length
    end
    from = from + length
    index = index + 1
  end
  count, lengths, entries = #kept, table.concat(sizes, ','), table.concat(kept)
end

local answer = number .. ' ' .. epoch_s .. ' ' .. first_s .. ' ' .. duplicates
if count == 0 then
  redis.call('HSET', KEYS[1], field, answer)
  return answer
end
seq = seq + count
local seq_s = int(seq)
redis.call('XADD', KEYS[2], prefix .. seq_s, 'l', lengths, 'e', entries)
redis.call('HSET', KEYS[1], 'seq', seq_s, field, answer)
local readers = redis.call('PUBLISH', ARGV[5], 'e ' .. epoch_s .. ' ' .. first_s .. ' ' .. lengths .. '\n' .. entries)
-- Now and then, an eighth of the log at a time.
local step = math.max(1, math.floor(most / 8))
if seq > most and math.floor(seq / step) > math.floor((first - 1) / step) then trim(epoch, seq - most) end
return answer .. ' ' .. readers
