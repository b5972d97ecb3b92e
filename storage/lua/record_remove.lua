-- Removes a record. KEYS[1] as in record_insert. Argument: {name, its revision or false for any}.
-- Answers {ok} or {other}. Keys: v, n.
local name, revision = ARGS[1], ARGS[2]
local stored = call("HGET", KEYS[1] .. ":v", name)
if not stored or (revision and cmsgpack.unpack(stored)[1] ~= revision) then return answer("other") end
call("HDEL", KEYS[1] .. ":v", name)
call("ZREM", KEYS[1] .. ":n", name)
return answer("ok")
