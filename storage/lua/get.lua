-- Reads messages by id. Argument: {now, {{place, generation}, ...}}, places ascending.
-- Answers {ok, generation, {message, ...}}, {again} or {unknown}, {moved, move}. Keys: all of the queue.
local base, now, ids = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local places = {}
for _, id in ipairs(ids) do
    if id[2] == queue.gen then places[#places + 1] = id[1] end
end
return answer("ok", queue.gen, described(base, places))
