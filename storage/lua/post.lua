-- Appends messages. Argument: {now, may create, generation for a new queue, idempotency key or false,
-- fingerprint, window (ms), client if all have the same or false, messages, tickets or false, base of the outbox,
-- generation for a new outbox}; messages and tickets are {message, expiry, end of delay or 0} each. A queue that is
-- made has subscribers if there are tickets. With false for tickets nobody is told.
-- Answers {ok, generation, first place, count, repeated}, {unknown}, {moved, move}, {reused}, or {fan, whether it
-- has subscribers} if that does not fit the tickets. Keys: h, m, r, d, v, x, i, j, q, due; the same of the outbox.
local base = KEYS[1]
local now, may_create, generation, key, fingerprint, window, client, messages, tickets, outbox, box_generation =
    unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then
    if refusal ~= UNKNOWN or not may_create then return refusal end
    queue = {base = base, gen = generation, last = 0, sub = ""}
    call("HSET", base .. ":h", "gen", generation, "last", 0)
    if tickets and #tickets > 0 then
        queue.sub = "post"
        call("HSET", base .. ":h", "sub", queue.sub)
    end
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
if tickets and (#tickets > 0) ~= (queue.sub ~= "") then return answer("fan", queue.sub ~= "") end

-- Puts messages at the end; returns when the first of them falls due.
local function append(to, entries, only)
    local due = math.huge
    local bodies, ends, ready, delayed, delays, places = {}, {}, {}, {}, {}, {}
    local function note(list, one, other)
        list[#list + 1] = one
        list[#list + 1] = other
    end
    for i, entry in ipairs(entries) do
        local place = to.last + i
        local body, expires, visible = unpack(entry)
        places[i] = place
        note(bodies, place, body)
        note(ends, expires, place)
        if visible > 0 then
            note(delayed, place, place)
            note(delays, visible, place)
            due = math.min(due, visible)
        else
            note(ready, place, place)
        end
        due = math.min(due, expires)
    end
    spread("HSET", to.base .. ":m", bodies)
    spread("ZADD", to.base .. ":x", ends)
    spread("ZADD", to.base .. ":r", ready)
    spread("ZADD", to.base .. ":d", delayed)
    spread("ZADD", to.base .. ":v", delays)
    touch(to.base, "m", places)
    if call("ZCARD", to.base .. ":x") > #entries and to.only ~= only then only = false end
    call("HSET", to.base .. ":h", "last", to.last + #entries, "only", only or "")
    return due
end

if tickets and #tickets > 0 then
    local box = queue_at(outbox)
    if not box then
        box = {base = outbox, gen = box_generation, last = 0}
        call("HSET", outbox .. ":h", "gen", box_generation)
    end
    expect(outbox, append(box, tickets, false))
    tell(outbox)
end
local first, due = queue.last + 1, append(queue, messages, client)
if key then
    call("HSET", base .. ":i", key, cmsgpack.pack({fingerprint, first, #messages, now + window}))
    call("ZADD", base .. ":j", now + window, key)
    if watched[base] then touch(base, "o", {key}) end
    due = math.min(due, now + window)
end
expect(base, due)
tell(base)
return answer("ok", queue.gen, first, #messages, false)
