-- Begins a move at its source: from now on changes are noted. Argument: {move, generation for a new queue}.
-- Answers {ok, generation} or {moved, move}. Keys: h, q.
local base, move, generation = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then
    if refusal ~= UNKNOWN then return refusal end
    queue = {gen = generation}
    call("HSET", base .. ":h", "gen", generation, "last", 0)
end
if watched[base] == move then return answer("ok", queue.gen) end
call("UNLINK", base .. ":q")
call("HSET", base .. ":h", "move", move, "stamp", 0)
return answer("ok", queue.gen)
