-- Shuts a queue that departs. Argument: {move}. Answers {ok, last place, stamp of subscribers or "", free, claimed} or {over}.
-- Keys: h, r, d, c, due.
local base, move = KEYS[1], ARGS[1]
local header = call("HMGET", base .. ":h", "move", "shut", "last", "sub")
if header[1] ~= move or header[2] == "2" then return answer("over") end
call("HSET", base .. ":h", "shut", 1)
call("ZREM", due_key(base), base)
tell(base)
local free = call("ZCARD", base .. ":r") + call("ZCARD", base .. ":d")
return answer("ok", tonumber(header[3]), header[4] or "", free, call("ZCARD", base .. ":c"))
