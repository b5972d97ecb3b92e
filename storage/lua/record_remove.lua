-- Removes a record. KEYS[1] as in record_insert. Argument: {name}. Answers {ok} or {absent}. Keys: v, n.
if call("HDEL", KEYS[1] .. ":v", ARGS[1]) == 0 then return answer("absent") end
call("ZREM", KEYS[1] .. ":n", ARGS[1])
return answer("ok")
