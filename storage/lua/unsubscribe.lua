-- Notes that a queue has no subscribers, if nobody has noted since that it has. Argument: {stamp}.
-- Answers {ok} or {unknown}, {moved, move}. Keys: h.
local base, stamp = KEYS[1], ARGS[1]
local queue, refusal = queue_at(base)
if not queue then return refusal end
if queue.sub == stamp then call("HDEL", base .. ":h", "sub") end
return answer("ok")
