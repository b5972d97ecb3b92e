-- Removes the first messages that are ready. Argument: {now, limit}.
-- Answers {ok, generation, {message, ...}}, {again} or {unknown}. Keys: all of the queue.
local base, now, limit = KEYS[1], ARGS[1], ARGS[2]
local queue = queue_at(base)
if not queue then return answer("unknown") end
local _, done = settle(base, now)
if not done then return answer("again") end
local places = call("ZRANGE", base .. ":r", 0, limit - 1)
local found = described(base, places)
remove(base, places)
return answer("ok", queue.gen, found)
