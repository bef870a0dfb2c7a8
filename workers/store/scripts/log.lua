-- The head of the log. KEYS[1] is its meta, KEYS[2] its stream.
-- A position that somebody has seen and that is not there means that Redis lost data (it restarted
-- with an older state, or none): then another epoch begins, so that no position is given twice.
local function head(known_epoch, known_seq)
  known_epoch, known_seq = tonumber(known_epoch), tonumber(known_seq)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
  local epoch, seq = tonumber(meta[1]), tonumber(meta[2])
  if epoch and seq and (known_epoch < epoch or (known_epoch == epoch and known_seq <= seq)) then
    return epoch, seq
  end
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  local last_epoch = 0
  if last[1] then last_epoch = tonumber(string.match(last[1][1], '^%d+')) end
  epoch = math.max(now_ms(), known_epoch + 1, (epoch or 0) + 1, last_epoch + 1)
  redis.call('HSET', KEYS[1], 'epoch', int(epoch), 'seq', 0)
  return epoch, 0
end
