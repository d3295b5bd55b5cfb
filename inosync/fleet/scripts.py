"""What Redis does all at once, in Lua. Each script checks what it relies on, because requests may come late.

A script of the origin does nothing without the lease of the origin, and one of a sender nothing without the
lease of the node. KEYS are named by ``Keys``; numbers are exact below 2^53.
"""

from __future__ import annotations

_ORIGIN = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
"""
_RECORD = """
local function n(x) return string.format('%.0f', x) end
local function read(value)
  if not value then return nil end
  local e, c, u, t = string.match(value, '^(%S+) (%S+) (%d+) ([01])$')
  if not e then return nil end
  return {e, tonumber(c), tonumber(u), t}
end
local function merge(key, node, epoch, cursor, upto, tidy)
  local old = read(redis.call('HGET', key, node))
  if old and old[1] == epoch then
    if old[2] and (not cursor or old[2] > cursor) then cursor = old[2] end
    if old[3] > upto then upto = old[3] end
  end
  local text = cursor and n(cursor) or '-'
  redis.call('HSET', key, node, epoch .. ' ' .. text .. ' ' .. n(upto) .. ' ' .. tidy)
end
"""

RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""lease; value, TTL."""

RELEASE = (
    _RECORD
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
local old = read(redis.call('HGET', KEYS[2], ARGV[2]))
if old and ARGV[3] == '1' then merge(KEYS[2], ARGV[2], old[1], old[2], old[3], '1') end
return 1
"""
)
"""lease, nodes; value, node, tidy."""

TAKE = (
    _RECORD
    + """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3]) then return {} end
local value = redis.call('HGET', KEYS[2], ARGV[2])
local old = read(value)
if old then merge(KEYS[2], ARGV[2], old[1], old[2], old[3], '0') end
return {n(redis.call('INCR', KEYS[3])), value or ''}
"""
)
"""lease, nodes, asked; value, node, TTL. The number of the question, and the record as it was."""

BEGIN = (
    _RECORD
    + """
local span = redis.call('HMGET', KEYS[2], 'epoch', 'floor', 'appended')
local upto = tonumber(ARGV[2])
if span[1] ~= ARGV[1] or upto < tonumber(span[2]) or upto > tonumber(span[3]) then return {} end
local begun = {}
for i = 3, #KEYS do
  local value, node = ARGV[2 * i - 3], ARGV[2 * i - 2]
  if redis.call('GET', KEYS[i]) == value then
    merge(KEYS[1], node, ARGV[1], nil, upto, '0')
    begun[#begun + 1] = node
  end
end
return begun
"""
)
"""nodes, fleet, leases; epoch, upto, and value and node of each lease. The nodes that may be sent so much."""

CONFIRM = (
    _RECORD
    + """
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return {} end
local confirmed = {}
for i = 3, #KEYS do
  local value, node, cursor = ARGV[3 * i - 7], ARGV[3 * i - 6], tonumber(ARGV[3 * i - 5])
  if redis.call('GET', KEYS[i]) == value then
    merge(KEYS[1], node, ARGV[1], cursor, cursor, '0')
    confirmed[#confirmed + 1] = node
  end
end
return confirmed
"""
)
"""nodes, fleet, leases; epoch, and value, node and cursor of each lease. The nodes for which it was done."""

RESTORE = (
    _RECORD
    + """
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do
  local new = read(ARGV[i + 1])
  if new and new[1] == ARGV[1] then merge(KEYS[1], ARGV[i], new[1], new[2], new[3], '0') end
end
return 1
"""
)
"""nodes, fleet; epoch, and name and record of each node."""

TAKE_ORIGIN = """
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, #ARGV[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
"""
"""origin; value, how the values of earlier processes of this origin begin, TTL."""

BEGIN_EPOCH = (
    _RECORD
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('HSET', KEYS[2], 'format', ARGV[4], 'epoch', ARGV[2], 'floor', ARGV[3], 'appended', ARGV[3])
for i = 5, #ARGV, 2 do
  local new = read(ARGV[i + 1])
  if new and new[1] == ARGV[2] then merge(KEYS[5], ARGV[i], new[1], new[2], new[3], '0') end
end
return 1
"""
)
"""origin, fleet, journal, position, nodes; value, epoch, floor, format, and name and record of each node."""

APPEND = (
    _ORIGIN
    + """
local span = redis.call('HMGET', KEYS[2], 'epoch', 'floor', 'appended')
if span[1] ~= ARGV[2] then return 0 end
for i = 5, #ARGV, 2 do redis.call('ZADD', KEYS[3], 'GT', ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[3]) > tonumber(span[3]) then redis.call('HSET', KEYS[2], 'appended', ARGV[3]) end
if tonumber(ARGV[4]) > tonumber(span[2]) then
  redis.call('HSET', KEYS[2], 'floor', ARGV[4])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[4])
end
return 1
"""
)
"""origin, fleet, journal; value, epoch, appended, floor, and position and member of each change."""

SAY = (
    _ORIGIN
    + """
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], ARGV[3])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
  redis.call('PUBLISH', KEYS[5] .. ':' .. ARGV[i], '')
end
return 1
"""
)
"""origin, fleet, position, arrived, news; value, epoch, position, and name and arrived of each sender."""
