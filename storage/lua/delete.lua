-- Deletes messages. Argument: {now, {{place, generation}, ...}, rule, claims}: with the rule "one" a message
-- falls to the claim in claims[1], or to nobody's; with "covered" live claims must be among claims; with "any"
-- claims do not matter. Nothing is deleted unless everything may be.
-- Answers {ok}, {claimed}, {unheld}, {again} or {unknown}, {moved, move}. Keys: all of the queue.
local base = KEYS[1]
local now, ids, rule, claims = unpack(ARGS)
local queue, refusal = queue_at(base)
if not queue then return refusal end
local _, done = settle(base, now)
if not done then return answer("again") end
local places, may = {}, {}
for _, claim in ipairs(claims) do may[claim] = true end
local own = {}
for _, id in ipairs(ids) do
    if id[2] == queue.gen then own[#own + 1] = id[1] end
end
if #own == 0 then return answer("ok") end
local ends = call("ZMSCORE", base .. ":x", unpack(own))
local leases = call("HMGET", base .. ":l", unpack(own))
for i, place in ipairs(own) do
    if ends[i] then
        local _, holder = lease_of(leases[i])
        if rule ~= "any" and holder and not may[holder] then
            local known = claims[1] and call("HEXISTS", base .. ":k", claims[1]) == 1
            if rule == "one" and claims[1] and not known then return answer("unheld") end
            return answer("claimed")
        end
        if rule == "one" and claims[1] and not holder then return answer("unheld") end
        places[#places + 1] = place
    end
end
remove(base, places)
return answer("ok")
