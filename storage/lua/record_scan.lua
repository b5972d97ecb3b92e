-- Reads records by name. KEYS[1] as in record_insert. Argument: {name to begin behind, limit}.
-- Answers {ok, {{name, value}, ...}}. Keys: v, n.
local after, limit = ARGS[1], ARGS[2]
local names = call("ZRANGEBYLEX", KEYS[1] .. ":n", after == "" and "-" or "(" .. after, "+", "LIMIT", 0, limit)
local found = {}
for i, value in ipairs(#names > 0 and call("HMGET", KEYS[1] .. ":v", unpack(names)) or {}) do
    found[i] = {names[i], value}
end
return answer("ok", found)
