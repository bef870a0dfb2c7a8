-- The log. KEYS[1] is its meta, KEYS[2] its stream. An item of the stream is a batch: its id is the offset of its
-- last entry, field `l` has the lengths `n,n,…` of the entries, field `e` the entries, one after the other.

-- Where the head is, and the value of `field` in the meta.
-- A position that was seen and that is not there means that Redis lost data (it restarted
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

-- Marks in the list KEYS[3] are `<epoch> <seq> <bytes>`: where the head was, and how many bytes of entries had been appended
-- by then. `bytes` in the meta is that sum, `trimmed` the sum where the log begins. A worker counts what it appends now and
-- then, so the sum is a little too small. A build that does not count leaves it as it is: what is trimmed by it is trimmed late.

-- Marks the head.
local function mark(epoch, seq, bytes)
  redis.call('RPUSH', KEYS[3], epoch .. ' ' .. seq .. ' ' .. int(bytes))
end

-- Takes the oldest marks for which `goes` holds; what the last of them says.
local function take_marks(goes)
  local last_epoch, last_seq, last_bytes
  while true do
    local epoch, seq, bytes = string.match(redis.call('LINDEX', KEYS[3], 0) or '', '^(%d+) (%d+) (%d+)$')
    epoch, seq, bytes = tonumber(epoch), tonumber(seq), tonumber(bytes)
    if not epoch or not goes(epoch, seq, bytes) then return last_epoch, last_seq, last_bytes end
    redis.call('LPOP', KEYS[3])
    last_epoch, last_seq, last_bytes = epoch, seq, bytes
  end
end

-- Removes batches up to an offset, one by one, a few read at a time: each has its entries with it.
local function remove_upto(offset)
  for _ = 1, 256 do
    local batches = redis.call('XRANGE', KEYS[2], '-', offset, 'COUNT', 16)
    for _, batch in ipairs(batches) do redis.call('XDEL', KEYS[2], batch[1]) end
    if #batches < 16 then break end
  end
end

-- Removes what ended at `seq` or before it.
local function remove(epoch, seq)
  local trimmed = redis.pcall('XTRIM', KEYS[2], 'MINID', '=', int(epoch) .. '-' .. int(seq + 1))
  -- Redis before 6.2 knows no MINID.
  if type(trimmed) == 'table' and trimmed.err then remove_upto(int(epoch) .. '-' .. int(seq)) end
end

-- Trims the log: what ended at `seq` or before it goes.
local function trim(epoch, seq)
  if seq < 1 then return end
  remove(epoch, seq)
  local _, _, bytes = take_marks(function(e, s) return e < epoch or (e == epoch and s <= seq) end)
  if bytes then redis.call('HSET', KEYS[1], 'trimmed', int(bytes)) end
end

-- Trims the log to the `keep` latest of `bytes`, to a mark: a little more is kept.
local function trim_bytes(bytes, keep)
  -- Such marks belong to a meta that was lost.
  take_marks(function(_, _, b) return b > bytes end)
  local epoch, seq, gone = take_marks(function(_, _, b) return bytes - b >= keep end)
  if not epoch then return end
  remove(epoch, seq)
  redis.call('HSET', KEYS[1], 'trimmed', int(gone))
end
