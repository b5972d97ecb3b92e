-- Ends a claim. Argument: {now, claim id}. Answers {ok}, {again} or {unknown}. Keys: all of the queue.
local base, now, id = KEYS[1], ARGS[1], ARGS[2]
if not queue_at(base) then return answer("unknown") end
local _, done = settle(base, now)
if not done then return answer("again") end
release(base, id)
return answer("ok")
