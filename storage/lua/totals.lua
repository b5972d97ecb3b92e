-- Counts the messages of a shard. KEYS[1] is PREFIX:{SHARD}:due: a queue that has messages is in it, unless it is shut.
-- Argument: {now, first rank, most}. Answers {ok, free, claimed, queues looked at} or {again}.
-- Keys: due, and all of the queues in it.
local now, first, most = unpack(ARGS)
local free, claimed, looked = 0, 0, 0
for _, base in ipairs(call("ZRANGE", KEYS[1], first, first + most - 1)) do
    queue_at(base)
    local _, done = settle(base, now)
    if not done then return answer("again") end
    free = free + call("ZCARD", base .. ":r") + call("ZCARD", base .. ":d")
    claimed = claimed + call("ZCARD", base .. ":c")
    looked = looked + 1
end
return answer("ok", free, claimed, looked)
