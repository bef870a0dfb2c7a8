-- Appends a batch: all of it or nothing, and only once.
-- KEYS: meta, stream
-- ARGV: 1 batch number, 2 3 known position, 4 most entries of the log, 5 channel, 6 the worker's field in meta,
--       7 number of entries, 8 their lengths `n,n,…`, 9 the entries, one after the other,
--       10 dedupe key prefix, 11 dedupe window ms, then index, id and former id (or nothing) of each entry that has one
-- Answer: `<batch> <epoch> <first seq> <index>=<offset>;…` (the duplicates), and of a batch that was pushed ` <readers>`
local number, field, count, lengths, entries = ARGV[1], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9]
local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'seq', field)
local epoch, seq, latest = meta[1], tonumber(meta[2]), meta[3]
-- Usually the log goes on where the worker knows it to be.
if epoch ~= ARGV[2] or not seq or seq < tonumber(ARGV[3]) then
  local head = log_functions()
  epoch, seq, latest = head(ARGV[2], ARGV[3], field)
  epoch = string.format('%.0f', epoch)
end
if latest then
  local batch = tonumber(string.match(latest, '^%d+'))
  if batch == tonumber(number) then return latest end
  if batch > tonumber(number) then return redis.error_reply('STALE batch') end
end
local first = seq + 1
local first_s, duplicates = string.format('%.0f', first), ''

if #ARGV > 11 then
  local id_of, former_of, kept, sizes, from = {}, {}, {}, {}, 1
  for i = 12, #ARGV, 3 do
    local index = tonumber(ARGV[i])
    id_of[index], former_of[index] = ARGV[i + 1], ARGV[i + 2]
  end
  local index = 0
  for length in string.gmatch(lengths, '%d+') do
    local offset, id, before = epoch .. '-' .. string.format('%.0f', first + #kept), id_of[index], false
    -- Under its id, `0` and the offset. Builds before this, which read `0` and the offset as the offset, and write it without
    -- `0`, look for the former id; several ids share one, which may even be the id of another event. What is for those
    -- builds alone begins with `00`.
    if id then
      local key, former = ARGV[10] .. id, former_of[index]
      if not call('SET', key, '0' .. offset, 'NX', 'PX', ARGV[11]) then
        before = call('GET', key)
        if string.sub(before, 1, 2) == '00' then
          before = false
          call('SET', key, '0' .. offset, 'PX', ARGV[11])
        end
      elseif former ~= '' then
        former = ARGV[10] .. former
        before = call('GET', former)
        if before and string.sub(before, 1, 1) ~= '0' then
          call('SET', key, before, 'PX', ARGV[11])
        else
          if not before or string.sub(before, 1, 2) == '00' then
            call('SET', former, '00' .. offset, 'PX', ARGV[11])
          end
          before = false
        end
      end
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

local answer = number .. ' ' .. epoch .. ' ' .. first_s .. ' ' .. duplicates
if count == 0 then
  call('HSET', KEYS[1], field, answer)
  return answer
end
seq = seq + count
local seq_s = count == 1 and first_s or string.format('%.0f', seq)
call('XADD', KEYS[2], epoch .. '-' .. seq_s, 'l', lengths, 'e', entries)
call('HSET', KEYS[1], 'seq', seq_s, field, answer)
local readers = call('PUBLISH', ARGV[5], 'e ' .. epoch .. ' ' .. first_s .. ' ' .. lengths .. '\n' .. entries)
-- Now and then, an eighth of the log at a time.
local most = tonumber(ARGV[4])
if seq > most then
  local step = math.max(1, math.floor(most / 8))
  if math.floor(seq / step) > math.floor((first - 1) / step) then
    local _, trim = log_functions()
    trim(tonumber(epoch), seq - most)
  end
end
return answer .. ' ' .. readers
