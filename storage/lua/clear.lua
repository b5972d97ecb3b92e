-- Empties a queue. Argument: {whether the queue itself goes too}. Answers {ok}. Keys: all of the queue, due.
-- The memory is given back in the background.
local base, drop = KEYS[1], ARGS[1]
for _, suffix in ipairs({":m", ":r", ":d", ":v", ":c", ":x", ":l", ":k", ":y"}) do
    call("UNLINK", base .. suffix)
end
if drop then
    call("UNLINK", base .. ":h", base .. ":i", base .. ":j")
    call("ZREM", due_key(base), base)
end
return answer("ok")
