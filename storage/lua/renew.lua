-- Lets a live claim begin anew. Argument: {now, claim id, ttl (s), until (ms), grace (ms)}.
-- Answers {ok}, {absent}, {again} or {unknown}, {moved, move}. Keys: all of the queue.
local base = KEYS[1]
local now, id, ttl, till, grace = unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local packed = call("HGET", base .. ":k", id)
if not packed then return answer("absent") end
local claim = cmsgpack.unpack(packed)
local places = held(base, id, claim[4])
for _, place in ipairs(places) do
    if tonumber(call("ZSCORE", base .. ":x", place)) < till then
        call("ZADD", base .. ":x", till + grace, place)
    end
end
call("HSET", base .. ":k", id, cmsgpack.pack({ttl, now, till, places}))
call("ZADD", base .. ":y", till, id)
touch(base, "m", places)
touch(base, "c", {id})
expect(base, till)
if till < claim[3] then tell(base) end
return answer("ok")
