-- Tells the layout of what is stored, and notes it in a store that is new. KEYS[1] is PREFIX:layout.
-- Argument: {layout of a new store, the lowest that a release has to know to use it}.
-- Answers {ok, layout, the lowest that a release has to know}. Keys: PREFIX:layout hash v, oldest.
local new, oldest = ARGS[1], ARGS[2]
if call("HSETNX", KEYS[1], "v", new) == 1 then call("HSET", KEYS[1], "oldest", oldest) end
local found = call("HMGET", KEYS[1], "v", "oldest")
return answer("ok", tonumber(found[1]), tonumber(found[2] or oldest))
