-- Leases the first messages that are ready. Argument: {now, claim id, limit, ttl (s), until (ms), grace (ms),
-- dead letters or false}, where dead letters are {base of their queue, most claims, new expiry or 0,
-- generation if that queue is new}.
-- Answers {ok, generation, {message, ...}, dead-lettered}, {again}, {moved, move, true} if the dead-letter
-- queue is shut, {newer, form}, or {unknown}, {moved, move}.
-- Keys: all of the queue; of the dead-letter queue, which is in the same shard: h, m, r, x.
local base = KEYS[1]
local now, id, limit, ttl, till, grace, dead = unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end

local function bury(place, target)
    local message = call("HGET", base .. ":m", place)
    local expires = tonumber(call("ZSCORE", base .. ":x", place))
    if dead[3] > 0 then
        expires = dead[3]
        local head = 2 + string.byte(message)
        message = string.sub(message, 1, head) .. struct.pack(">I8", now) .. string.sub(message, head + 9)
    end
    target.last = target.last + 1
    call("HSET", target.base .. ":m", target.last, message)
    call("ZADD", target.base .. ":x", expires, target.last)
    call("ZADD", target.base .. ":r", target.last, target.last)
    touch(target.base, "m", {target.last})
    expect(target.base, expires)
end

-- Returns what to answer if it cannot be done.
local function bury_all(doomed)
    local target, closed = queue_at(dead[1])
    if closed and closed ~= UNKNOWN then
        return answer("moved", call("HGET", dead[1] .. ":h", "move"), true)
    end
    target = target or {base = dead[1], gen = dead[4], last = 0}
    for _, place in ipairs(doomed) do bury(place, target) end
    call("HSET", target.base .. ":h", "gen", target.gen, "last", target.last, "only", "")
    remove(base, doomed)
    tell(target.base)
end

local places, leases, buried
buried = 0
repeat
    local doomed = {}
    places = call("ZRANGE", base .. ":r", 0, limit - 1)
    leases = #places > 0 and call("HMGET", base .. ":l", unpack(places)) or {}
    for i, place in ipairs(places) do
        if dead and lease_of(leases[i]) >= dead[2] then doomed[#doomed + 1] = place end
    end
    if #doomed > 0 then
        local closed = bury_all(doomed)
        if closed then return closed end
    end
    buried = buried + #doomed
until #doomed == 0 or buried >= BATCH
if #places == 0 or buried >= BATCH then
    return answer(buried >= BATCH and "again" or "ok", queue.gen, {}, buried)
end

local messages = call("HMGET", base .. ":m", unpack(places))
for _, message in ipairs(messages) do
    if message and is_newer(form_of(message)) then return answer("newer", form_of(message)) end
end

local ends = call("ZMSCORE", base .. ":x", unpack(places))
local given, claimed, extended = {}, {}, {}
for i, place in ipairs(places) do
    given[2 * i - 1], given[2 * i] = place, (lease_of(leases[i]) + 1) .. ":" .. id
    claimed[2 * i - 1], claimed[2 * i] = place, place
    if tonumber(ends[i]) < till then
        extended[#extended + 1] = till + grace
        extended[#extended + 1] = place
    end
end
spread("HSET", base .. ":l", given)
spread("ZADD", base .. ":c", claimed)
spread("ZADD", base .. ":x", extended)
call("ZREM", base .. ":r", unpack(places))
call("HSET", base .. ":k", id, cmsgpack.pack({ttl, now, till, places}))
call("ZADD", base .. ":y", till, id)
touch(base, "m", places)
touch(base, "c", {id})
expect(base, till)
return answer("ok", queue.gen, described(base, places, messages), buried)
