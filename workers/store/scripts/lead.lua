-- Takes or prolongs the lead of the ingest: 0, or the ms for which another worker has it.
-- KEYS: leader
-- ARGV: 1 me, 2 ttl ms, 3 dead key prefix
now_ms() -- before the first write
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] and redis.call('EXISTS', ARGV[3] .. leader) == 0 then
  local left = redis.call('PTTL', KEYS[1])
  -- It may live: it has its time, and no more.
  if is_overlong(left, ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    left = tonumber(ARGV[2])
  end
  return math.max(left, 1)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
