-- Empties a queue. Argument: {whether the queue itself goes too}. Answers {ok}, or {moved, move} unless it
-- goes. A move of the queue is over. Keys: all of the queue, due. The memory is given back in the background.
local base, drop = KEYS[1], ARGS[1]
local _, refusal = queue_at(base)
if refusal and refusal ~= UNKNOWN and not drop then return refusal end
call("HDEL", base .. ":h", "move", "stamp")
for _, suffix in ipairs({":m", ":r", ":d", ":v", ":c", ":x", ":l", ":k", ":y", ":q"}) do
    call("UNLINK", base .. suffix)
end
if drop then
    call("UNLINK", base .. ":h", base .. ":i", base .. ":j")
    call("ZREM", due_key(base), base)
end
return answer("ok")
