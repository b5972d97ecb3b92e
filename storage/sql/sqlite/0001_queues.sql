-- The tables of a SQLite store, version 1.
--
-- How to change what is stored (P13: this release and the one before it run side
-- by side on the same file):
--   1. Expand. Add a file NNNN_what.sql, the next number, that only adds: tables,
--      columns with a default, indexes. It is applied once, in one transaction,
--      when a process of the new release opens the file. Readers of the old
--      release must not notice; if they would, it is not an expansion.
--   2. Migrate. Code of the new release writes both shapes and reads either. What is
--      there already is filled in by NNNN_what.migrate.sql: statements that do a
--      small part, and are repeated, each time in a transaction of their own, until
--      they change nothing. `hermod migrate --up` runs it.
--   3. Contract. One release later, remove the old shape in NNNN_what.contract.sql,
--      behind all expansions of that release, and let it raise `oldest_reader` to its
--      own number, so that older code refuses to open. `hermod migrate --up` runs it.
-- Never edit a file that was released: `PRAGMA user_version` is the number of the
-- last one applied. docs/explanation/upgrades.md tells the whole of it.

-- What an older release must know to open the file.
CREATE TABLE format (
    oldest_reader INTEGER NOT NULL      -- lowest user_version whose code may use this file
);
INSERT INTO format (oldest_reader) VALUES (1);

-- The control plane: see queues.models.Record.
CREATE TABLE record (
    kind     TEXT NOT NULL,
    scope    TEXT NOT NULL,
    name     TEXT NOT NULL,
    v        INTEGER NOT NULL,          -- version of the shape of data
    revision INTEGER NOT NULL,
    data     BLOB NOT NULL,             -- JSON text
    PRIMARY KEY (kind, scope, name)
);

-- The header of a queue: everything that has to be exact and cheap to know.
CREATE TABLE queue (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    generation TEXT NOT NULL,           -- ends every message id; drawn anew if the queue is created again
    pile       INTEGER NOT NULL,        -- where its messages are; another one after a purge
    last_seq   INTEGER NOT NULL,        -- place of the newest message so far
    free       INTEGER NOT NULL,        -- messages in state 0 and 1
    claimed    INTEGER NOT NULL,        -- messages in state 2
    next_due   INTEGER NOT NULL,        -- ms; no expiry, claim end or delay end comes before it
    only_client TEXT,                   -- who posted everything that is there; NULL if several did
    subscribed TEXT NOT NULL DEFAULT '', -- stamp of who noted last that posts need tickets; empty where they need none
    move       TEXT,                    -- id of the move that the queue is part of
    shut       INTEGER NOT NULL DEFAULT 0, -- 1 while it is shut for that move, 2 once it has moved away
    news       INTEGER NOT NULL DEFAULT 0, -- grows with whatever those who watch the queue are told of
    UNIQUE (project, name)
);
CREATE INDEX queue_by_due ON queue (next_due);

-- Numbers of piles. An abandoned one is what a purged or dropped queue left behind.
CREATE TABLE pile (
    n         INTEGER PRIMARY KEY AUTOINCREMENT,
    abandoned INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX pile_abandoned ON pile (n) WHERE abandoned;

-- The small, changing part of a message. States: 0 ready, 1 delayed, 2 claimed.
CREATE TABLE message (
    pile    INTEGER NOT NULL,
    seq     INTEGER NOT NULL,           -- place in the queue, from 1
    state   INTEGER NOT NULL,
    created INTEGER NOT NULL,           -- ms
    expires INTEGER NOT NULL,           -- ms
    visible INTEGER NOT NULL,           -- ms; end of the delay
    client  TEXT NOT NULL,
    sealed  INTEGER NOT NULL,           -- 1 if the body is encrypted
    claims  INTEGER NOT NULL,           -- how often it was handed out
    claim   INTEGER,                    -- claim.n in state 2
    payload INTEGER NOT NULL,           -- payload.n
    PRIMARY KEY (pile, seq)
) WITHOUT ROWID;
-- What is ready, delayed or claimed, in order; with the client, so that hiding a producer's own needs no row.
CREATE INDEX message_by_state ON message (pile, state, seq, client);
CREATE INDEX message_by_expiry ON message (pile, expires);
CREATE INDEX message_by_delay ON message (pile, visible) WHERE state = 1;
CREATE INDEX message_by_claim ON message (claim) WHERE claim IS NOT NULL;

-- The large, unchanging part, so that a claim does not rewrite it.
CREATE TABLE payload (
    n        INTEGER PRIMARY KEY,
    body     BLOB NOT NULL,
    checksum INTEGER NOT NULL           -- CRC-32 of the body: SQLite itself would not notice what a disk does to it
);

CREATE TABLE claim (
    n       INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    pile    INTEGER NOT NULL,
    ttl     INTEGER NOT NULL,           -- seconds
    renewed INTEGER NOT NULL,           -- ms
    expires INTEGER NOT NULL            -- ms
);
CREATE INDEX claim_by_expiry ON claim (pile, expires);

-- Posts that may be repeated (P10).
CREATE TABLE idempotency (
    queue       INTEGER NOT NULL,       -- queue.n
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    first_seq   INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    expires     INTEGER NOT NULL,       -- ms
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires);

-- Queues that are about to move to another store. Triggers note what changes in them, and are there
-- only as long as there is such a queue.
CREATE TABLE departing (
    pile  INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL              -- queue.n
);
CREATE TABLE touched (
    n    INTEGER PRIMARY KEY AUTOINCREMENT,
    pile INTEGER NOT NULL,
    kind INTEGER NOT NULL,              -- 0 message, 1 claim, 2 idempotency key
    key  NOT NULL,                      -- message.seq, claim.id, idempotency.key
    UNIQUE (pile, kind, key) ON CONFLICT REPLACE
);
