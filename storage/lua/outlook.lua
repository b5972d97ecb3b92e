-- Says what is to come. Argument: {now}. Changes nothing, so what is overdue is passed over.
-- Answers {ok, generation, last place, when the next thing falls due or false} or {unknown}, {moved, move}. Keys: h, x, v, y.
local base, now = KEYS[1], string.format("%.0f", ARGS[1])
local queue, refusal = queue_at(base)
if not queue then return refusal end
local due = false
for _, suffix in ipairs({":x", ":v", ":y"}) do
    local next_one = call("ZRANGEBYSCORE", base .. suffix, "(" .. now, "+inf", "WITHSCORES", "LIMIT", 0, 1)
    local instant = tonumber(next_one[2])
    if instant and (not due or instant < due) then due = instant end
end
return answer("ok", queue.gen, queue.last, due)
