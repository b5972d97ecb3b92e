-- Notes that a queue has subscribers, and who noted it. Argument: {generation for a new queue, stamp}.
-- Answers {ok} or {moved, move}. Keys: h.
local base, generation, stamp = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then
    if refusal ~= UNKNOWN then return refusal end
    call("HSET", base .. ":h", "gen", generation, "last", 0)
end
call("HSET", base .. ":h", "sub", stamp)
return answer("ok")
