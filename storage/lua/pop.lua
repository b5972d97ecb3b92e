-- Removes the first messages that are ready, up to one that is encrypted. Argument: {now, limit}.
-- Answers {ok, generation, {message, ...}, whether an encrypted one is next}, {again} or {unknown}, {moved, move}.
-- Keys: all of the queue.
local base, now, limit = KEYS[1], ARGS[1], ARGS[2]
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local places, sealed = {}, false
for _, place in ipairs(call("ZRANGE", base .. ":r", 0, limit - 1)) do
    local message = call("HGET", base .. ":m", place)
    sealed = string.byte(message, 2 + string.byte(message)) == 1
    if sealed then break end
    places[#places + 1] = place
end
local found = described(base, places)
remove(base, places)
return answer("ok", queue.gen, found, sealed)
