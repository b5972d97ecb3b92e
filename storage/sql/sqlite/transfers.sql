-- The statements by which queues move from one store to another, each behind its name.

-- name: departing_insert
INSERT OR REPLACE INTO departing (pile, queue) VALUES (?, ?)

-- name: departing_delete
DELETE FROM departing WHERE pile = ?

-- name: departing_any
SELECT EXISTS (SELECT 1 FROM departing)

-- name: touched_delete
DELETE FROM touched WHERE pile = ?

-- Left alone, SQLite would go through all that a queue touched, for each page.
-- name: touched_since
SELECT n, kind, key FROM touched NOT INDEXED WHERE pile = ? AND n > ? ORDER BY n LIMIT ?

-- name: message_range
SELECT m.seq, p.body, m.created, m.expires, CASE m.state WHEN 1 THEN m.visible ELSE 0 END,
       m.client, m.sealed, c.id, m.claims, p.checksum
FROM message m LEFT JOIN payload p ON p.n = m.payload LEFT JOIN claim c ON c.n = m.claim
WHERE m.pile = ? AND m.seq > ? ORDER BY m.seq LIMIT ?

-- name: message_some
SELECT m.seq, p.body, m.created, m.expires, CASE m.state WHEN 1 THEN m.visible ELSE 0 END,
       m.client, m.sealed, c.id, m.claims, p.checksum
FROM message m LEFT JOIN payload p ON p.n = m.payload LEFT JOIN claim c ON c.n = m.claim
WHERE m.pile = ? AND m.seq IN (SELECT value FROM json_each(?))

-- name: message_load
INSERT INTO message (pile, seq, state, created, expires, visible, client, sealed, claims, claim, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: claim_range
SELECT id, ttl, renewed, expires, n FROM claim
WHERE pile = ? AND (expires, n) > (?, ?) ORDER BY expires, n LIMIT ?

-- By id, not through all claims of the queue.
-- name: claim_some
SELECT id, ttl, renewed, expires, n FROM claim WHERE +pile = ? AND id IN (SELECT value FROM json_each(?))

-- name: claim_places
SELECT seq FROM message WHERE claim = ? ORDER BY seq

-- name: claim_evict
DELETE FROM claim WHERE id = ? AND pile <> ?

-- name: claim_load
INSERT INTO claim (id, pile, ttl, renewed, expires) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET ttl = excluded.ttl, renewed = excluded.renewed, expires = excluded.expires

-- name: claim_number
SELECT n FROM claim WHERE id = ? AND pile = ?

-- name: claim_unload
DELETE FROM claim WHERE pile = ? AND id = ?

-- name: post_range
SELECT key, fingerprint, first_seq, count, expires FROM idempotency
WHERE queue = ? AND key > ? ORDER BY key LIMIT ?

-- name: post_some
SELECT key, fingerprint, first_seq, count, expires FROM idempotency
WHERE queue = ? AND key IN (SELECT value FROM json_each(?))

-- name: queue_admit
INSERT INTO queue (project, name, generation, pile, last_seq, free, claimed, next_due, move, shut)
VALUES (?, ?, ?, ?, 0, 0, 0, ?, ?, 1)

-- A message that is buried changes its pile.
-- name: watch_message_insert
CREATE TRIGGER IF NOT EXISTS watch_message_insert AFTER INSERT ON message
WHEN NEW.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) VALUES (NEW.pile, 0, NEW.seq);
END

-- name: watch_message_update
CREATE TRIGGER IF NOT EXISTS watch_message_update AFTER UPDATE ON message
WHEN OLD.pile IN (SELECT pile FROM departing) OR NEW.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) SELECT pile, 0, OLD.seq FROM departing WHERE pile = OLD.pile;
    INSERT INTO touched (pile, kind, key) SELECT pile, 0, NEW.seq FROM departing WHERE pile = NEW.pile;
END

-- name: watch_message_delete
CREATE TRIGGER IF NOT EXISTS watch_message_delete AFTER DELETE ON message
WHEN OLD.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) VALUES (OLD.pile, 0, OLD.seq);
END

-- name: watch_claim_insert
CREATE TRIGGER IF NOT EXISTS watch_claim_insert AFTER INSERT ON claim
WHEN NEW.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) VALUES (NEW.pile, 1, NEW.id);
END

-- name: watch_claim_update
CREATE TRIGGER IF NOT EXISTS watch_claim_update AFTER UPDATE ON claim
WHEN NEW.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) VALUES (NEW.pile, 1, NEW.id);
END

-- name: watch_claim_delete
CREATE TRIGGER IF NOT EXISTS watch_claim_delete AFTER DELETE ON claim
WHEN OLD.pile IN (SELECT pile FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) VALUES (OLD.pile, 1, OLD.id);
END

-- name: watch_post_insert
CREATE TRIGGER IF NOT EXISTS watch_post_insert AFTER INSERT ON idempotency
WHEN NEW.queue IN (SELECT queue FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) SELECT pile, 2, NEW.key FROM departing WHERE queue = NEW.queue;
END

-- name: watch_post_delete
CREATE TRIGGER IF NOT EXISTS watch_post_delete AFTER DELETE ON idempotency
WHEN OLD.queue IN (SELECT queue FROM departing) BEGIN
    INSERT INTO touched (pile, kind, key) SELECT pile, 2, OLD.key FROM departing WHERE queue = OLD.queue;
END
