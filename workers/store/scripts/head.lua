-- KEYS: meta, stream
-- ARGV: 1 2 known position
local epoch, seq = head(ARGV[1], ARGV[2], 'seq')
return int(epoch) .. '-' .. int(seq)
