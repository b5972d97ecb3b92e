"""sqlite3 alone: the same rows as one would write a queue for a single program.

One table with one index, one connection, the same settings as the store's, one
transaction for each step; nothing is checked, counted, or shared.
"""

from __future__ import annotations

import sqlite3
import threading
import time

from bench.bodies import PRODUCER, body
from bench.conditions import BODY_SIZE

_TABLES = """
CREATE TABLE IF NOT EXISTS message (
    n       INTEGER PRIMARY KEY,
    queue   INTEGER NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    client  TEXT NOT NULL,
    claim   INTEGER,
    body    BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS message_free ON message (queue, n) WHERE claim IS NULL;
"""
_INSERT = "INSERT INTO message (queue, created, expires, client, body) VALUES (1, ?, ?, ?, ?)"
_COUNT = "SELECT count(*) FROM message WHERE queue = 1 AND claim IS NULL"
_FREE = "SELECT n, body FROM message WHERE queue = 1 AND claim IS NULL ORDER BY n LIMIT ?"
_CLAIM = "UPDATE message SET claim = ?, expires = ? WHERE n BETWEEN ? AND ? AND queue = 1 AND claim IS NULL"
_DELETE = "DELETE FROM message WHERE n = ?"


class Rows:
    """A queue in a file of its own."""

    def __init__(self, uri: str, size: int = BODY_SIZE) -> None:
        self._connection = sqlite3.connect(
            uri.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
        )
        self._turn = threading.Lock()  # where there are several threads
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(_TABLES)
        self._body = body(size)
        self._claims = 0

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def prepare(self, stock: int) -> None:
        """See to it that so many messages are there."""
        (there,) = self._connection.execute(_COUNT).fetchone()
        if there < stock:
            self.post(stock - there)

    def post(self, count: int) -> None:
        """Insert messages, in one transaction."""
        now = time.time_ns() // 1_000_000
        row = (now, now + 86_400_000, PRODUCER, self._body)
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERT, [row] * count)
        execute("COMMIT")

    def append(self, document: bytes) -> int:
        """Insert a message with this body, in a transaction of its own, and return its number."""
        now = time.time_ns() // 1_000_000
        execute = self._connection.execute
        with self._turn, self._connection:  # which ends the transaction
            execute("BEGIN IMMEDIATE")
            place = execute(_INSERT, (now, now + 86_400_000, PRODUCER, document)).lastrowid
        return place or 0

    def take(self, count: int) -> int:
        """Claim messages in one transaction and delete them in another."""
        execute = self._connection.execute
        self._claims += 1
        execute("BEGIN IMMEDIATE")
        rows = execute(_FREE, (count,)).fetchall()
        if rows:
            now = time.time_ns() // 1_000_000
            execute(_CLAIM, (self._claims, now + 300_000, rows[0][0], rows[-1][0]))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        self._connection.executemany(_DELETE, [(n,) for n, _ in rows])
        execute("COMMIT")
        return len(rows)
