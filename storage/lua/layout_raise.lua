-- Notes that a step to another layout was made. KEYS[1] as in layout. Argument: {layout, the lowest that a release
-- has to know to use it}. Answers {ok}. Keys: PREFIX:layout.
local layout, oldest = ARGS[1], ARGS[2]
if tonumber(call("HGET", KEYS[1], "v") or 0) < layout then
    call("HSET", KEYS[1], "v", layout, "oldest", oldest)
end
return answer("ok")
