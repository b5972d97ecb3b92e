-- The statements of the SQLite driver, each behind its name.
-- A list of numbers is passed as JSON text and read with json_each.

-- name: queue_load
SELECT n, generation, pile, last_seq, free, claimed, next_due, only_client, move, shut, subscribed, news
FROM queue WHERE project = ? AND name = ?

-- name: queue_load_by_number
SELECT n, generation, pile, last_seq, free, claimed, next_due, only_client, move, shut, subscribed, news
FROM queue WHERE n = ?

-- name: queue_insert
INSERT INTO queue (project, name, generation, pile, last_seq, free, claimed, next_due)
VALUES (?, ?, ?, ?, 0, 0, 0, ?)

-- name: queue_save
UPDATE queue
SET pile = ?, last_seq = ?, free = ?, claimed = ?, next_due = ?, only_client = ?, move = ?, shut = ?,
    subscribed = ?, news = ?
WHERE n = ?

-- name: queue_delete
DELETE FROM queue WHERE n = ?

-- name: queues_due
SELECT n FROM queue WHERE next_due <= ? ORDER BY next_due LIMIT ?

-- name: queue_totals
SELECT coalesce(sum(free), 0), coalesce(sum(claimed), 0) FROM queue WHERE shut = 0

-- Which of some queues have come further; they are passed as a list of [project, name, n, news].
-- name: news
SELECT wanted.key, queue.n, queue.news
FROM json_each(?) AS wanted
CROSS JOIN queue ON queue.project = json_extract(wanted.value, '$[0]')
    AND queue.name = json_extract(wanted.value, '$[1]')
WHERE (queue.n, queue.news) > (json_extract(wanted.value, '$[2]'), json_extract(wanted.value, '$[3]'))

-- The earliest thing that can fall due in a pile; NULL where there is none.
-- name: next_due
SELECT min(due) FROM (
    SELECT (SELECT expires FROM message WHERE pile = :pile ORDER BY expires LIMIT 1) AS due
    UNION ALL
    SELECT (SELECT expires FROM claim WHERE pile = :pile ORDER BY expires LIMIT 1)
    UNION ALL
    SELECT (SELECT visible FROM message WHERE pile = :pile AND state = 1 ORDER BY visible LIMIT 1)
)

-- name: pile_insert
INSERT INTO pile (abandoned) VALUES (0)

-- name: pile_abandon
UPDATE pile SET abandoned = 1 WHERE n = ?

-- name: pile_abandoned
SELECT n FROM pile WHERE abandoned LIMIT 1

-- name: pile_delete
DELETE FROM pile WHERE n = ?

-- name: payload_last
SELECT coalesce(max(n), 0) FROM payload

-- name: payload_insert
INSERT INTO payload (n, body, checksum) VALUES (?, ?, ?)

-- name: payload_delete
DELETE FROM payload WHERE n IN (SELECT value FROM json_each(?))

-- name: message_insert
INSERT INTO message (pile, seq, state, created, expires, visible, client, sealed, claims, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)

-- name: message_delete
DELETE FROM message WHERE pile = ? AND seq IN (SELECT value FROM json_each(?))

-- name: message_get
SELECT m.seq, p.body, m.created, m.expires, m.client, m.sealed, c.id, m.claims, p.checksum
FROM message m LEFT JOIN payload p ON p.n = m.payload LEFT JOIN claim c ON c.n = m.claim
WHERE m.pile = ? AND m.seq IN (SELECT value FROM json_each(?))
ORDER BY m.seq

-- One range per state, each in queue order, merged: what is not asked for is never walked over.
-- name: message_list
WITH chosen (seq) AS MATERIALIZED (
    SELECT seq FROM (
        SELECT seq FROM message
        WHERE pile = :pile AND state = 0 AND seq > :after AND (:hide IS NULL OR client <> :hide)
        ORDER BY seq LIMIT :limit)
    UNION ALL
    SELECT seq FROM (
        SELECT seq FROM message
        WHERE :delayed AND pile = :pile AND state = 1 AND seq > :after AND (:hide IS NULL OR client <> :hide)
        ORDER BY seq LIMIT :limit)
    UNION ALL
    SELECT seq FROM (
        SELECT seq FROM message
        WHERE :claimed AND pile = :pile AND state = 2 AND seq > :after AND (:hide IS NULL OR client <> :hide)
        ORDER BY seq LIMIT :limit)
    ORDER BY 1 LIMIT :limit
)
SELECT m.seq, p.body, m.created, m.expires, m.client, m.sealed, c.id, m.claims, p.checksum
FROM chosen
CROSS JOIN message m ON m.pile = :pile AND m.seq = chosen.seq
LEFT JOIN payload p ON p.n = m.payload LEFT JOIN claim c ON c.n = m.claim
ORDER BY m.seq

-- name: message_locate
SELECT m.seq, m.state, m.payload, c.id
FROM message m LEFT JOIN claim c ON c.n = m.claim
WHERE m.pile = ? AND m.seq IN (SELECT value FROM json_each(?))

-- Left alone, SQLite would walk along the queue itself, past everything that is not ready.
-- name: message_ready
SELECT seq, state, payload, claims, sealed FROM message INDEXED BY message_by_state
WHERE pile = ? AND state = 0 ORDER BY seq LIMIT ?

-- name: message_expired
SELECT seq, state, payload FROM message
WHERE pile = ? AND expires <= ? ORDER BY expires LIMIT ?

-- name: message_any
SELECT seq, state, payload FROM message WHERE pile = ? ORDER BY seq LIMIT ?

-- name: message_oldest
SELECT seq, created FROM message WHERE pile = ? ORDER BY seq LIMIT 1

-- name: message_newest
SELECT seq, created FROM message WHERE pile = ? ORDER BY seq DESC LIMIT 1

-- name: message_mature
UPDATE message SET state = 0 WHERE pile = ? AND state = 1 AND visible <= ?

-- Claims all that is ready up to a place; the caller has looked there first.
-- name: message_claim
UPDATE message INDEXED BY message_by_state SET state = 2, claim = :claim, claims = claims + 1
WHERE pile = :pile AND state = 0 AND seq <= :last

-- name: message_of_claim
SELECT m.seq, p.body, m.created, m.expires, m.client, m.sealed, c.id, m.claims, p.checksum
FROM claim c
CROSS JOIN message m ON m.claim = c.n LEFT JOIN payload p ON p.n = m.payload
WHERE c.n = ? ORDER BY m.seq

-- name: message_extend
UPDATE message SET expires = :until + :grace WHERE claim = :claim AND expires < :until

-- name: message_release
UPDATE message SET state = 0, claim = NULL WHERE claim IN (SELECT value FROM json_each(?))

-- name: message_bury
UPDATE message
SET pile = :to_pile, seq = :to_seq, claims = 0,
    created = coalesce(:created, created), expires = coalesce(:expires, expires)
WHERE pile = :pile AND seq = :seq
RETURNING expires

-- name: claim_insert
INSERT INTO claim (id, pile, ttl, renewed, expires) VALUES (?, ?, ?, ?, ?)

-- name: claim_find
SELECT n, ttl, renewed, expires FROM claim WHERE id = ? AND pile = ?

-- name: claim_renew
UPDATE claim SET ttl = ?, renewed = ?, expires = ? WHERE n = ?

-- name: claim_expired
SELECT n FROM claim WHERE pile = ? AND expires <= ? ORDER BY expires LIMIT ?

-- name: claim_delete
DELETE FROM claim WHERE n IN (SELECT value FROM json_each(?))

-- name: claim_any
SELECT n FROM claim WHERE pile = ? LIMIT ?

-- name: once_find
SELECT fingerprint, first_seq, count FROM idempotency WHERE queue = ? AND key = ? AND expires > ?

-- name: once_insert
INSERT OR REPLACE INTO idempotency (queue, key, fingerprint, first_seq, count, expires)
VALUES (?, ?, ?, ?, ?, ?)

-- name: once_expired
SELECT queue, key FROM idempotency WHERE expires <= ? ORDER BY expires LIMIT ?

-- name: once_delete
DELETE FROM idempotency WHERE queue = ? AND key = ?

-- name: once_due
SELECT EXISTS (SELECT 1 FROM idempotency WHERE expires <= ?)

-- name: record_insert
INSERT INTO record (kind, scope, name, v, revision, data) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: record_fetch
SELECT v, revision, data FROM record WHERE kind = ? AND scope = ? AND name = ?

-- name: record_replace
UPDATE record SET v = ?, data = ?, revision = revision + 1
WHERE kind = ? AND scope = ? AND name = ? AND revision = ?

-- name: record_remove
DELETE FROM record
WHERE kind = :kind AND scope = :scope AND name = :name AND (:revision IS NULL OR revision = :revision)

-- name: record_scan
SELECT name, v, revision, data FROM record
WHERE kind = ? AND scope = ? AND name > ? ORDER BY name LIMIT ?

-- name: record_count
SELECT count(*) FROM record WHERE kind = ? AND scope = ?
