-- Ends a move's hold on a queue. Argument: {move, what, seconds}: with "retire" the messages of a queue that is
-- shut go, and the header stays shut for so many seconds; with "discard" such a queue goes; with "reopen" it is
-- open again, or forgotten if it was retired, and the move is over. Does nothing to any other queue. Answers {ok}. Keys: all of the queue, due.
local base, move, what, seconds = KEYS[1], ARGS[1], ARGS[2], ARGS[3]
local header = call("HMGET", base .. ":h", "move", "shut")
if header[1] ~= move or (what ~= "reopen" and not header[2]) then return answer("ok") end
if what == "reopen" and header[2] ~= "2" then
    call("HDEL", base .. ":h", "move", "shut", "stamp")
    call("UNLINK", base .. ":q")
    if header[2] then expect(base, 0) end  -- whoever comes next finds out what is due
    return answer("ok")
end
for _, suffix in ipairs({":m", ":r", ":d", ":v", ":c", ":x", ":l", ":k", ":y", ":i", ":j", ":q"}) do
    call("UNLINK", base .. suffix)
end
if what == "retire" then
    call("HSET", base .. ":h", "shut", 2)
    call("EXPIRE", base .. ":h", seconds)
else
    call("UNLINK", base .. ":h")
end
return answer("ok")
