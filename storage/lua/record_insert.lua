-- Stores a record unless its name is taken. KEYS[1] is the base of a kind and scope. Argument: {name, value}.
-- Answers {ok} or {taken}. Keys: BASE:v hash name -> packed {revision, v, data}; BASE:n zset names, all of score 0.
local name, value = ARGS[1], ARGS[2]
if call("HSETNX", KEYS[1] .. ":v", name, value) == 0 then return answer("taken") end
call("ZADD", KEYS[1] .. ":n", 0, name)
return answer("ok")
