-- What an application asks about sockets. Reads only.
-- KEYS: link
-- ARGV: `sock` sid | `rooms` sid | `members` namespace room | `names` namespace
local call = redis.call
local P = call('HGET', KEYS[1], 'prefix')
if not P then return redis.error_reply('UNLINKED no gateway has published the link') end
if ARGV[1] == 'sock' then return call('HGETALL', sock_of(P, ARGV[2])) end
if ARGV[1] == 'rooms' then return call('SMEMBERS', in_of(P, ARGV[2])) end
return call('SMEMBERS', room_of(P, ARGV[2], ARGV[3]))
