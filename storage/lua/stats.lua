-- Counts messages. Argument: {now}.
-- Answers {ok, generation, free, claimed, oldest or false, newest or false}, the ends as {place, message};
-- {again} or {unknown}, {moved, move}. Keys: all of the queue.
local base, now = KEYS[1], ARGS[1]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end

local function outermost(command, better)
    local place
    for _, suffix in ipairs({":r", ":d", ":c"}) do
        local found = tonumber(call(command, base .. suffix, 0, 0)[1])
        if found and (not place or better(found, place)) then place = found end
    end
    return place and {place, call("HGET", base .. ":m", place)} or false
end

local ready, delayed = call("ZCARD", base .. ":r"), call("ZCARD", base .. ":d")
return answer(
    "ok", queue.gen, ready + delayed, call("ZCARD", base .. ":c"),
    outermost("ZRANGE", function(a, b) return a < b end),
    outermost("ZREVRANGE", function(a, b) return a > b end)
)
