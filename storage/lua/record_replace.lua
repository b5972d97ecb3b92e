-- Replaces a record of a certain revision. KEYS[1] as in record_insert. Argument: {name, revision, value}.
-- Answers {ok} or {other}. Keys: v.
local name, revision, value = unpack(ARGS)
local stored = call("HGET", KEYS[1] .. ":v", name)
if not stored or cmsgpack.unpack(stored)[1] ~= revision then return answer("other") end
call("HSET", KEYS[1] .. ":v", name, value)
return answer("ok")
