-- Reads a page. Argument: {now, marker {place, generation} or false, limit, client to hide or false,
-- claimed too, delayed too, how many to look at}.
-- Answers {ok, generation, {message, ...}, place to go on behind or false}, {again} or {unknown}, {moved, move}.
-- Keys: all of the queue.
local base = KEYS[1]
local now, marker, limit, hidden, claimed, delayed, look = unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
if (marker and marker[2] ~= queue.gen) or (hidden and hidden == queue.only) then
    return answer("ok", queue.gen, {}, false)
end
local after = marker and "(" .. string.format("%.0f", marker[1]) or "-inf"
local places = {}
local function take(suffix)
    local range = call("ZRANGEBYSCORE", base .. suffix, after, "+inf", "LIMIT", 0, look)
    for _, place in ipairs(range) do places[#places + 1] = tonumber(place) end
end
take(":r")
if delayed then take(":d") end
if claimed then take(":c") end
table.sort(places)
local shown, last = {}, false
for i = 1, math.min(#places, look) do
    last = places[i]
    local visible = true
    if hidden then
        local message = call("HGET", base .. ":m", last)
        visible = string.sub(message, 2, 1 + string.byte(message)) ~= hidden
    end
    if visible then shown[#shown + 1] = last end
    if #shown == limit then break end
end
local more = #shown < limit and #places >= look and last
return answer("ok", queue.gen, described(base, shown), more)
