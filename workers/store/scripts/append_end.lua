-- Appends the entries of a batch, pushes and trims. It follows the script that decides which these are, and takes from there:
-- epoch, seq, first, first_s, count, lengths, entries, answer, field, entries_max, size, channel.
if count == 0 then
  call('HSET', KEYS[1], field, answer)
  return answer
end
seq = seq + count
local seq_s = count == 1 and first_s or string.format('%.0f', seq)
call('XADD', KEYS[2], epoch .. '-' .. seq_s, 'l', lengths, 'e', entries)
call('HSET', KEYS[1], 'seq', seq_s, field, answer)
local readers = call('PUBLISH', channel, 'e ' .. epoch .. ' ' .. first_s .. ' ' .. lengths .. '\n' .. entries)
-- Now and then, an eighth of the log at a time.
local most = tonumber(entries_max)
if seq > most then
  local step = math.max(1, math.floor(most / 8))
  if math.floor(seq / step) > math.floor((first - 1) / step) then
    local _, trim = log_functions()
    trim(tonumber(epoch), seq - most)
  end
end
-- The same by bytes, at each mark; what the workers have not counted yet is within the eighth that is left free.
if size ~= '' then
  local most_bytes, uncounted = string.match(size, '^(%d+) (%d+)$')
  local bytes = call('HINCRBY', KEYS[1], 'bytes', string.format('%.0f', uncounted + #entries))
  local _, _, mark, trim_bytes = log_functions()
  mark(epoch, seq_s, bytes)
  trim_bytes(bytes, most_bytes * 7 / 8)
end
return answer .. ' ' .. readers
