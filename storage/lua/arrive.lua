-- Takes over what is known of a queue that arrives. Argument: {move, last place, stamp of subscribers or ""}. Answers {ok} or {over}.
-- Keys: h.
local base, move, last, subscribed = KEYS[1], ARGS[1], ARGS[2], ARGS[3]
local header = call("HMGET", base .. ":h", "move", "shut")
if header[1] ~= move or header[2] ~= "1" then return answer("over") end
call("HSET", base .. ":h", "last", last, "only", "")
if subscribed ~= "" then call("HSET", base .. ":h", "sub", subscribed) end
return answer("ok")
