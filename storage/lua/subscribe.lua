-- Notes whether a queue has subscribers. Argument: {generation for a new queue, whether it has}.
-- Answers {ok} or {moved, move}. Keys: h.
local base, generation, subscribed = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then
    if refusal ~= UNKNOWN then return refusal end
    call("HSET", base .. ":h", "gen", generation, "last", 0)
end
if subscribed then call("HSET", base .. ":h", "sub", 1) else call("HDEL", base .. ":h", "sub") end
return answer("ok")
