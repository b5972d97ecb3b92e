-- Takes over a part of a queue that arrives. Argument: {move, messages, claims, posts}; entries are
-- {place, message, expiry, how often handed out, claim or "", end of delay or 0}, {claim, packed, expiry} and
-- {key, packed, expiry}, without anything behind the first where the thing is gone.
-- Answers {ok} or {over}. Keys: all of the queue.
local base = KEYS[1]
local move, messages, claims, posts = unpack(ARGS)
local header = call("HMGET", base .. ":h", "move", "shut")
if header[1] ~= move or header[2] ~= "1" then return answer("over") end
for _, entry in ipairs(messages) do
    local place, message, expires, count, claim, visible = unpack(entry)
    remove(base, {place})
    if message then
        call("HSET", base .. ":m", place, message)
        call("ZADD", base .. ":x", expires, place)
        if claim ~= "" then
            call("ZADD", base .. ":c", place, place)
        elseif visible > 0 then
            call("ZADD", base .. ":d", place, place)
            call("ZADD", base .. ":v", visible, place)
        else
            call("ZADD", base .. ":r", place, place)
        end
        if count > 0 or claim ~= "" then call("HSET", base .. ":l", place, count .. ":" .. claim) end
    end
end
local function keep(entries, values, moments)
    for _, entry in ipairs(entries) do
        local key, packed, expires = unpack(entry)
        if packed then
            call("HSET", base .. values, key, packed)
            call("ZADD", base .. moments, expires, key)
        else
            call("HDEL", base .. values, key)
            call("ZREM", base .. moments, key)
        end
    end
end
keep(claims, ":k", ":y")
keep(posts, ":i", ":j")
return answer("ok")
