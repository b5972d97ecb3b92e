-- Removes the first messages that are ready, up to one that is encrypted. Argument: {now, limit}.
-- Answers {ok, generation, {message, ...}, whether an encrypted one is next}, {newer, form}, {again} or {unknown},
-- {moved, move}.
-- Keys: all of the queue.
local base, now, limit = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local places, form = {}, 0
for _, place in ipairs(call("ZRANGE", base .. ":r", 0, limit - 1)) do
    form = form_of(call("HGET", base .. ":m", place))
    if form > 0 then break end
    places[#places + 1] = place
end
if is_newer(form) then return answer("newer", form) end
local found = described(base, places)
remove(base, places)
return answer("ok", queue.gen, found, form > 0)
