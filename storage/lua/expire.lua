-- Reclaims what is over in a shard. KEYS[1] is PREFIX:{SHARD}:due. Argument: {now, most}.
-- A queue that is shut is not in it. Answers {ok, how many things}. Keys: due, and all of the queues in it that are overdue.
local now, most = unpack(ARGS)
local count = 0
for _, base in ipairs(call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, most)) do
    queue_at(base)
    count = count + 1 + settle(base, now, math.min(BATCH, most - count))
    local keys = call("ZRANGEBYSCORE", base .. ":j", "-inf", now, "LIMIT", 0, math.max(1, most - count))
    if #keys > 0 then
        call("HDEL", base .. ":i", unpack(keys))
        call("ZREM", base .. ":j", unpack(keys))
        touch(base, "o", keys)
        count = count + #keys
    end
    local due
    for _, suffix in ipairs({":x", ":y", ":v", ":j"}) do
        local first = first_score(base .. suffix)
        if first and (not due or first < due) then due = first end
    end
    if due then call("ZADD", KEYS[1], due, base) else call("ZREM", KEYS[1], base) end
    if count >= most then break end
end
return answer("ok", count)
