-- Reads a live claim. Argument: {now, claim id}.
-- Answers {ok, generation, {message, ...}, ttl, renewed, expires}, {absent}, {again} or {unknown}, {moved, move}.
-- Keys: all of the queue.
local base, now, id = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local packed = call("HGET", base .. ":k", id)
if not packed then return answer("absent") end
local ttl, renewed, expires, places = unpack(cmsgpack.unpack(packed))
return answer("ok", queue.gen, described(base, held(base, id, places)), ttl, renewed, expires)
