-- What all scripts share; it is put in front of each of them.
--
-- KEYS[1] is the base key of a queue: PREFIX:{SHARD}:LENGTH:PROJECT:QUEUE, where LENGTH is the
-- project's length in bytes, so that no two queues share a base. Its own keys are
--   BASE:h  hash    header: gen (ends every message id), last (place of the newest message so far),
--                   only (who posted everything that is there; nothing if several did),
--                   sub (the stamp of who noted last that posts need tickets; nothing where they need none),
--                   move (id of the move that it is part of), shut (1 while it is shut for that move, 2 once
--                   it has moved away), stamp (counts the changes during the move)
--   BASE:m  hash    place -> message: length of client (1 byte), client, form (1 byte; see queues/versions.py),
--                   created (8), body
--   BASE:r  zset    places that are ready, by place
--   BASE:d  zset    places that are delayed, by place
--   BASE:v  zset    places that are delayed, by the end of the delay (ms)
--   BASE:c  zset    places that are claimed, by place
--   BASE:x  zset    all places, by expiry (ms)
--   BASE:l  hash    place -> how often it was handed out, ":", the id of the live claim or nothing
--   BASE:k  hash    claim id -> packed {ttl (s), renewed (ms), expires (ms), {places as claimed}}
--   BASE:y  zset    claim ids, by expiry (ms)
--   BASE:i  hash    idempotency key -> packed {fingerprint, first place, count, expires (ms)}
--   BASE:j  zset    idempotency keys, by expiry (ms)
--   BASE:q  zset    during a move: what changed, by stamp: "m" and place, "c" and claim, "o" and idempotency key
-- and its shard has
--   PREFIX:{SHARD}:due  zset  bases, by an instant (ms) before which nothing of the queue falls due
--
-- The layout of all this is noted in PREFIX:layout: see layout.lua, and storage/redis_layout.py for how to change it.
--
-- What is new in a queue is told, without a word, at the channel BASE@DATABASE. DATABASE stands in front of this
-- text, and so does MESSAGE_VERSION, the newest version of a message that whoever calls can read.
--
-- Each place is in exactly one of r, d and c. A script takes one packed argument and answers one packed
-- list that begins with a word: ok, again (something due is left; call again), moved (the queue is shut
-- for the move that follows), newer (a message, whose form follows, is of a version that cannot be read), or what was wrong.

local BATCH = 500  -- things that fall due, handled by one call at most
local MANY = 1000  -- words of a command; Lua has no room for many thousands
local ARGS = cmsgpack.unpack(ARGV[1])
local call = redis.call
local unpack = unpack

local function answer(...)
    return cmsgpack.pack({...})
end

local UNKNOWN = answer("unknown")
local watched = {}  -- bases of queues that are about to move

-- Returns a queue's header; or nil and what to answer, where there is none or it is shut.
local function queue_at(base)
    local header = call("HMGET", base .. ":h", "gen", "last", "only", "move", "shut", "sub")
    if not header[1] then return nil, UNKNOWN end
    if header[5] then return nil, answer("moved", header[4]) end
    watched[base] = header[4]
    return {base = base, gen = header[1], last = tonumber(header[2]), only = header[3], sub = header[6] or ""}
end

-- Notes that things changed, if the queue is about to move.
local function touch(base, kind, keys)
    if not watched[base] or #keys == 0 then return end
    local stamp = call("HINCRBY", base .. ":h", "stamp", 1)
    for _, key in ipairs(keys) do call("ZADD", base .. ":q", stamp, kind .. key) end
end

-- Calls a command on a key with many words, of which an even number at a time.
local function spread(command, key, words)
    for first = 1, #words, MANY do
        call(command, key, unpack(words, first, math.min(first + MANY - 1, #words)))
    end
end

local function due_key(base)
    return string.match(base, "^[^}]*}") .. ":due"
end

local function expect(base, due)
    call("ZADD", due_key(base), "LT", due, base)
end

-- Tells those who watch a queue. Without them there is no more to it. Whoever may not publish has posted all the same.
local function tell(base)
    redis.pcall("PUBLISH", base .. "@" .. DATABASE, "")
end

local function lease_of(text)
    -- returns how often a place was handed out, and its live claim or false
    if not text then return 0, false end
    local count, claim = string.match(text, "^(%d+):(.*)$")
    return tonumber(count), claim ~= "" and claim
end

local function remove(base, places)
    if #places == 0 then return end
    touch(base, "m", places)
    for _, suffix in ipairs({":r", ":d", ":v", ":c", ":x"}) do
        call("ZREM", base .. suffix, unpack(places))
    end
    call("HDEL", base .. ":m", unpack(places))
    call("HDEL", base .. ":l", unpack(places))
end

-- The places that a claim still holds.
local function held(base, claim, places)
    local mine = {}
    if #places == 0 then return mine end
    local leases = call("HMGET", base .. ":l", unpack(places))
    for i, place in ipairs(places) do
        local _, holder = lease_of(leases[i])
        if holder == claim then mine[#mine + 1] = place end
    end
    return mine
end

local function release(base, claim)
    local packed = call("HGET", base .. ":k", claim)
    if not packed then return 0 end
    local places = held(base, claim, cmsgpack.unpack(packed)[4])
    for _, place in ipairs(places) do
        local count = lease_of(call("HGET", base .. ":l", place))
        call("HSET", base .. ":l", place, count .. ":")
        call("ZADD", base .. ":r", place, place)
    end
    if #places > 0 then call("ZREM", base .. ":c", unpack(places)) end
    call("HDEL", base .. ":k", claim)
    call("ZREM", base .. ":y", claim)
    touch(base, "m", places)
    touch(base, "c", {claim})
    return #places
end

local function first_score(key)
    local head = call("ZRANGE", key, 0, 0, "WITHSCORES")
    return head[2] and tonumber(head[2])
end

-- Lets take place what fell due, about `most` of it; returns how many things that was, and whether that was all.
local function settle(base, now, most)
    most = most or BATCH
    local expired = call("ZRANGEBYSCORE", base .. ":x", "-inf", now, "LIMIT", 0, most)
    remove(base, expired)
    local over = call("ZRANGEBYSCORE", base .. ":y", "-inf", now, "LIMIT", 0, most)
    for _, claim in ipairs(over) do release(base, claim) end
    local matured = call("ZRANGEBYSCORE", base .. ":v", "-inf", now, "LIMIT", 0, most)
    for _, place in ipairs(matured) do call("ZADD", base .. ":r", place, place) end
    touch(base, "m", matured)
    if #matured > 0 then
        call("ZREM", base .. ":d", unpack(matured))
        call("ZREM", base .. ":v", unpack(matured))
    end
    return #expired + #over + #matured, math.max(#expired, #over, #matured) < most
end

local function form_of(message)
    return string.byte(message, 2 + string.byte(message))
end

local function is_newer(form)
    return form >= 2 * MESSAGE_VERSION
end

-- Messages for an answer, one {place, message, expiry, lease} each; places without a message are left out.
-- The messages themselves may be known already.
local function described(base, places, messages)
    local found = {}
    if #places == 0 then return found end
    messages = messages or call("HMGET", base .. ":m", unpack(places))
    local expiries = call("ZMSCORE", base .. ":x", unpack(places))
    local leases = call("HMGET", base .. ":l", unpack(places))
    for i, place in ipairs(places) do
        if messages[i] then
            found[#found + 1] = {tonumber(place), messages[i], tonumber(expiries[i]), leases[i]}
        end
    end
    return found
end
