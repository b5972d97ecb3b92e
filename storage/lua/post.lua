-- Appends messages. Argument: {now, may create, generation for a new queue, idempotency key or false,
-- fingerprint, window (ms), client if all have the same or false, {{message, expiry, end of delay or 0}, ...}}.
-- Answers {ok, generation, first place, count, repeated}, {unknown}, {moved, move} or {reused}.
-- Keys: h, m, r, d, v, x, i, j, due.
local base = KEYS[1]
local now, may_create, generation, key, fingerprint, window, client, messages = unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then
    if refusal ~= UNKNOWN or not may_create then return refusal end
    queue = {base = base, gen = generation, last = 0}
    call("HSET", base .. ":h", "gen", generation, "last", 0)
end
if key then
    local earlier = call("HGET", base .. ":i", key)
    if earlier then
        local print, first, count, expires = unpack(cmsgpack.unpack(earlier))
        if expires > now then
            if print ~= fingerprint then return answer("reused") end
            return answer("ok", queue.gen, first, count, true)
        end
    end
end
local first, due = queue.last + 1, math.huge
for i, message in ipairs(messages) do
    local place = queue.last + i
    local body, expires, visible = unpack(message)
    call("HSET", base .. ":m", place, body)
    call("ZADD", base .. ":x", expires, place)
    if visible > 0 then
        call("ZADD", base .. ":d", place, place)
        call("ZADD", base .. ":v", visible, place)
        due = math.min(due, visible)
    else
        call("ZADD", base .. ":r", place, place)
    end
    due = math.min(due, expires)
end
if call("ZCARD", base .. ":x") > #messages and queue.only ~= client then client = false end
call("HSET", base .. ":h", "last", queue.last + #messages, "only", client or "")
if key then
    call("HSET", base .. ":i", key, cmsgpack.pack({fingerprint, first, #messages, now + window}))
    call("ZADD", base .. ":j", now + window, key)
    due = math.min(due, now + window)
end
if watched[base] then
    for place = first, queue.last + #messages do touch(base, "m", {place}) end
    if key then touch(base, "o", {key}) end
end
expect(base, due)
return answer("ok", queue.gen, first, #messages, false)
