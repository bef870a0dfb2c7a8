-- Appends a batch: all of it or nothing, and only once.
-- KEYS: meta, stream, sizes
-- ARGV: 1 batch number, 2 3 known position, 4 most entries of the log, 5 most bytes, if they are to be counted, and what this
--       worker appended in former batches and did not count yet, as `most uncounted`, 6 channel, 7 the worker's field in meta,
--       8 number of entries, 9 their lengths `n,n,…`, 10 the entries, one after the other,
--       11 dedupe key prefix, 12 dedupe window ms, then index, id and former id (or nothing) of each entry that has one
-- Answer: `<batch> <epoch> <first seq> <index>=<offset>;…` (the duplicates), and of a batch that was pushed ` <readers>`
local number, field, count, lengths, entries = ARGV[1], ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]
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

if #ARGV > 12 then
  local id_of, former_of, kept, sizes, from = {}, {}, {}, {}, 1
  for i = 13, #ARGV, 3 do
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
      local key, former = ARGV[11] .. id, former_of[index]
      if not call('SET', key, '0' .. offset, 'NX', 'PX', ARGV[12]) then
        before = call('GET', key)
        if string.sub(before, 1, 2) == '00' then
          before = false
          call('SET', key, '0' .. offset, 'PX', ARGV[12])
        end
      elseif former ~= '' then
        former = ARGV[11] .. former
        before = call('GET', former)
        if before and string.sub(before, 1, 1) ~= '0' then
          call('SET', key, before, 'PX', ARGV[12])
        else
          if not before or string.sub(before, 1, 2) == '00' then
            call('SET', former, '00' .. offset, 'PX', ARGV[12])
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
local entries_max, size, channel = ARGV[4], ARGV[5], ARGV[6]
