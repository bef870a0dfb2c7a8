-- The log. KEYS[1] is its meta, KEYS[2] its stream. An item of the stream is a batch: its id is the offset of its
-- last entry, field `l` has the lengths `n,n,…` of the entries, field `e` the entries, one after the other.

-- Where the head is, and the value of `field` in the meta.
-- A position that somebody has seen and that is not there means that Redis lost data (it restarted
-- with an older state, or none): then another epoch begins, so that no position is given twice.
local function head(known_epoch, known_seq, field)
  known_epoch, known_seq = tonumber(known_epoch), tonumber(known_seq)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', field)
  local epoch, seq = tonumber(meta[1]), tonumber(meta[2])
  if epoch and seq and (known_epoch < epoch or (known_epoch == epoch and known_seq <= seq)) then
    return epoch, seq, meta[3]
  end
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  local last_epoch = 0
  if last[1] then last_epoch = tonumber(string.match(last[1][1], '^%d+')) end
  epoch = math.max(now_ms(), known_epoch + 1, (epoch or 0) + 1, last_epoch + 1)
  redis.call('HSET', KEYS[1], 'epoch', int(epoch), 'seq', 0)
  return epoch, 0, meta[3]
end

-- Removes batches up to an offset, one by one.
local function remove_upto(offset)
  local batches = redis.call('XRANGE', KEYS[2], '-', offset, 'COUNT', 1000)
  for _, batch in ipairs(batches) do redis.call('XDEL', KEYS[2], batch[1]) end
end

-- Trims the log: what ended at `seq` or before it goes.
local function trim(epoch, seq)
  if seq < 1 then return end
  local trimmed = redis.pcall('XTRIM', KEYS[2], 'MINID', '=', int(epoch) .. '-' .. int(seq + 1))
  -- Redis before 6.2 knows no MINID.
  if type(trimmed) == 'table' and trimmed.err then remove_upto(int(epoch) .. '-' .. int(seq)) end
end
