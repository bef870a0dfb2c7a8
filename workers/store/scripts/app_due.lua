-- Sockets that are to be looked after, by one worker at a time: each comes again only after a while.
-- KEYS: members, sockets' lock
-- ARGV: 1 me, 2 how long the lock is held (ms), 3 most sockets, 4 when they come again (ms from now), 5 prefix
-- Answer: for each its sid, namespace, recovery id or '', Engine.IO session
local now = now_ms()
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {} end
local found = {}
for _, sid in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', KEYS[1], 'XX', int(now + ARGV[4]), sid)
  local sock = redis.call('HMGET', sock_of(ARGV[5], sid), 'n', 'pid', 'session')
  if not sock[1] then redis.call('ZREM', KEYS[1], sid) else
    for _, word in ipairs({sid, sock[1], sock[2] or '', sock[3] or ''}) do found[#found + 1] = word end
  end
end
return found
