-- A process begins: a number that no living process has. 20 bits of it are the upper half of its ack ids.
-- KEYS: counter, link
if redis.replicate_commands then redis.replicate_commands() end
if redis.call('EXISTS', KEYS[2]) == 0 then return redis.error_reply('UNLINKED no gateway has published the link') end
local P, t = redis.call('HGET', KEYS[2], 'prefix'), redis.call('TIME')
-- After a loss of data it does not begin with numbers that are in use.
redis.call('SET', KEYS[1], string.format('%.0f', t[1] % 1048576), 'NX')
while true do
  local number = redis.call('INCR', KEYS[1]) % 1048576
  if number > 0 and redis.call('EXISTS', control_of(P, number)) == 0 then return number end
end
