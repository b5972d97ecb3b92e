-- Ends a claim. Argument: {now, claim id}. Answers {ok}, {again} or {unknown}, {moved, move}. Keys: all of the queue.
local base, now, id = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
if release(base, id) > 0 then tell(base) end
return answer("ok")
