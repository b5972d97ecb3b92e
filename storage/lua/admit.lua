-- Makes an empty queue that is shut, in place of what stands there. Argument: {move, generation}.
-- Answers {ok}. Keys: all of the queue, due.
local base, move, generation = KEYS[1], ARGS[1], ARGS[2]
for _, suffix in ipairs({":h", ":m", ":r", ":d", ":v", ":c", ":x", ":l", ":k", ":y", ":i", ":j", ":q"}) do
    call("UNLINK", base .. suffix)
end
call("ZREM", due_key(base), base)
call("HSET", base .. ":h", "gen", generation, "last", 0, "move", move, "shut", 1)
return answer("ok")
