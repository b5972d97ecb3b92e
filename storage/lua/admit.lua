-- Makes an empty queue that is shut, in place of what stands there. Argument: {move, generation, announced}:
-- with announced only if the queue is part of this move. Answers {ok} or {over}. Keys: all of the queue, due.
local base, move, generation, announced = KEYS[1], ARGS[1], ARGS[2], ARGS[3]
local header = call("HMGET", base .. ":h", "move", "shut")
if announced and (header[1] ~= move or header[2] == "2") then return answer("over") end
for _, suffix in ipairs({":h", ":m", ":r", ":d", ":v", ":c", ":x", ":l", ":k", ":y", ":i", ":j", ":q"}) do
    call("UNLINK", base .. suffix)
end
call("ZREM", due_key(base), base)
call("HSET", base .. ":h", "gen", generation, "last", 0, "move", move, "shut", 1)
return answer("ok")
