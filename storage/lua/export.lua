-- Reads a part of a queue that departs. Argument: {move, part, cursor, limit}: the part is messages, claims,
-- posts or touched; the cursor is that of HSCAN, or the stamp behind which to begin.
-- Answers {ok, next cursor, messages, claims, posts}, each entry {key, what is kept or false}, or {over}: kept
-- of a message is {message, expiry, lease or false, end of delay or 0}. Keys: h, m, x, l, v, k, i, q.
local base = KEYS[1]
local move, part, cursor, limit = unpack(ARGS)
local header = call("HMGET", base .. ":h", "move", "shut")
if header[1] ~= move or header[2] == "2" then return answer("over") end

local function messages_at(places)
    local found = {}
    if #places == 0 then return found end
    local messages = call("HMGET", base .. ":m", unpack(places))
    local expiries = call("ZMSCORE", base .. ":x", unpack(places))
    local delays = call("ZMSCORE", base .. ":v", unpack(places))
    local leases = call("HMGET", base .. ":l", unpack(places))
    for i, place in ipairs(places) do
        local kept = messages[i] and {messages[i], tonumber(expiries[i]), leases[i], tonumber(delays[i] or 0)}
        found[i] = {tonumber(place), kept or false}
    end
    return found
end

local function values_of(suffix, keys)
    local found = {}
    local values = #keys > 0 and call("HMGET", base .. suffix, unpack(keys)) or {}
    for i, key in ipairs(keys) do found[i] = {key, values[i]} end
    return found
end

if part ~= "touched" then
    local suffix = ({messages = ":m", claims = ":k", posts = ":i"})[part]
    local scanned = call("HSCAN", base .. suffix, cursor, "COUNT", limit)
    local keys = {}
    for i = 1, #scanned[2], 2 do keys[#keys + 1] = scanned[2][i] end
    return answer(
        "ok", scanned[1],
        part == "messages" and messages_at(keys) or {},
        part == "claims" and values_of(":k", keys) or {},
        part == "posts" and values_of(":i", keys) or {}
    )
end

local page = call("ZRANGEBYSCORE", base .. ":q", "(" .. cursor, "+inf", "WITHSCORES", "LIMIT", 0, limit)
local last = page[#page]
if last then  -- what has the same stamp belongs together
    for _, member in ipairs(call("ZRANGEBYSCORE", base .. ":q", last, last)) do
        page[#page + 1] = member
        page[#page + 1] = last
    end
end
local seen, keys = {}, {m = {}, c = {}, o = {}}
for i = 1, #page, 2 do
    if not seen[page[i]] then
        seen[page[i]] = true
        local of_kind = keys[string.sub(page[i], 1, 1)]
        of_kind[#of_kind + 1] = string.sub(page[i], 2)
    end
end
return answer("ok", last or false, messages_at(keys.m), values_of(":k", keys.c), values_of(":i", keys.o))
