"""Queues on their way into and out of a SQLite file; see `queues.ports.QueueTransfers`.

While a queue departs, triggers note what changes in it; at other times there are none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from queues.errors import MoveInterrupted, QueueMoved
from queues.models import Address, Cargo, KeptClaim, KeptMessage, KeptPost, Outline
from queues.versions import sealed_of
from storage.sqlite_file import SqliteFile
from storage.sqlite_listener import SqliteListener
from storage.sqlite_queue import (
    AWAY,
    CLAIMED,
    DELAYED,
    NEVER,
    OPEN,
    READY,
    SHUT,
    Mark,
    QueueHeader,
    Row,
    create_queue,
    load_queue,
    new_pile,
    whole,
)
from storage.statements import load

_SQL: Final = load("sqlite/statements.sql") | load("sqlite/transfers.sql")
_WATCHES: Final = [name for name in _SQL if name.startswith("watch_")]

_REMEMBERED = 3_600_000  # ms that a queue which moved away stays shut
_MESSAGE, _CLAIM, _POST = 0, 1, 2  # what the table `touched` calls them


def stop_watching(connection: sqlite3.Connection, queue: QueueHeader) -> None:
    """Let a move of this queue to another store be over, if there is one."""
    if queue.move is not None:
        queue.move = None
        connection.execute(_SQL["departing_delete"], (queue.pile,))
        connection.execute(_SQL["touched_delete"], (queue.pile,))
        if not connection.execute(_SQL["departing_any"]).fetchone()[0]:
            for name in _WATCHES:
                connection.execute(f"DROP TRIGGER IF EXISTS {name}")


def drop_queue(connection: sqlite3.Connection, queue: QueueHeader) -> None:
    """Remove a header, and leave its messages to be cleared away."""
    stop_watching(connection, queue)
    connection.execute(_SQL["pile_abandon"], (queue.pile,))
    connection.execute(_SQL["queue_delete"], (queue.n,))


class SqliteTransfers:
    """Moves queues; see the port."""

    def __init__(self, file: SqliteFile, listener: SqliteListener) -> None:
        self._file = file
        self._listener = listener

    def depart(self, address: Address, move: str) -> str:
        """Begin a move at its source; see the port."""

        def step(connection: sqlite3.Connection) -> str:
            queue = load_queue(connection, address) or create_queue(connection, address)
            if queue.shut:
                raise QueueMoved(address, queue.move or "")
            if queue.move == move:
                return queue.generation
            stop_watching(connection, queue)
            connection.execute(_SQL["departing_insert"], (queue.pile, queue.n))
            for name in _WATCHES:
                connection.execute(_SQL[name])
            queue.move = move
            queue.save(connection)
            return queue.generation

        return self._file.write(step)

    def export(self, address: Address, move: str, *, cursor: str, limit: int) -> Cargo:
        """Return a part of the queue: claims, messages, posts, then what was touched; see the port."""
        with self._file.snapshot() as connection:
            queue = _moving(connection, address, move)
            phase, _, after = (cursor or "claims:").partition(":")
            if phase == "claims":
                expires, _, n = (after or "-1.0").partition(".")
                bounds = (queue.pile, int(expires), int(n), limit)
                rows = connection.execute(_SQL["claim_range"], bounds).fetchall()
                following = f"claims:{rows[-1][3]}.{rows[-1][4]}" if len(rows) == limit else "messages:0"
                return Cargo(claims=_claims(connection, rows), cursor=following, caught_up=False)
            if phase == "messages":
                rows = connection.execute(_SQL["message_range"], (queue.pile, int(after), limit)).fetchall()
                following = f"messages:{rows[-1][0]}" if len(rows) == limit else "posts:"
                return Cargo(messages=_messages(rows), cursor=following, caught_up=False)
            if phase == "posts":
                rows = connection.execute(_SQL["post_range"], (queue.n, after, limit)).fetchall()
                following = f"posts:{rows[-1][0]}" if len(rows) == limit else "touched:0"
                return Cargo(posts=_posts(rows), cursor=following, caught_up=False)
            return _changes(connection, queue, int(after), limit)

    def shut(self, address: Address, move: str) -> Outline:
        """Shut the queue; see the port."""

        def step(connection: sqlite3.Connection) -> tuple[Outline, Mark]:
            queue = _moving(connection, address, move)
            queue.shut, queue.next_due = SHUT, NEVER
            queue.news += 1
            queue.save(connection)
            outline = Outline(
                last=queue.last_seq,
                subscribed=queue.subscribed,
                free=queue.free,
                claimed=queue.claimed,
            )
            return outline, queue.mark

        outline, mark = self._file.write(step)
        self._listener.tell({address: mark})
        return outline

    def retire(self, address: Address, move: str, *, now: int) -> None:
        """Drop what the queue holds; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = _shut(connection, address, move)
            if queue is not None and queue.shut == SHUT:
                stop_watching(connection, queue)
                connection.execute(_SQL["pile_abandon"], (queue.pile,))
                queue.pile, queue.free, queue.claimed = new_pile(connection), 0, 0
                queue.move, queue.shut, queue.next_due = move, AWAY, now + _REMEMBERED
                queue.save(connection)

        self._file.write(step)

    def admit(self, address: Address, move: str, generation: str, *, announced: bool = False) -> None:
        """Make an empty queue that is shut; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            old = _moving(connection, address, move) if announced else load_queue(connection, address)
            if old is not None:
                drop_queue(connection, old)
            row = (address.project, address.queue, generation, new_pile(connection), NEVER, move)
            connection.execute(_SQL["queue_admit"], row)

        self._file.write(step)

    def load(self, address: Address, move: str, cargo: Cargo) -> None:
        """Take over a cargo; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = _admitted(connection, address, move)
            for id_, claim in cargo.claims.items():
                if claim is None:
                    connection.execute(_SQL["claim_unload"], (queue.pile, id_))
                else:
                    _load_claim(connection, queue, id_, claim.ttl, claim.renewed, claim.expires)
            _load_messages(connection, queue, cargo)
            for key, post in cargo.posts.items():
                if post is None:
                    connection.execute(_SQL["once_delete"], (queue.n, key))
                else:
                    kept = (post.fingerprint, post.first, post.count, post.expires)
                    connection.execute(_SQL["once_insert"], (queue.n, key, *kept))

        self._file.write(step)

    def arrive(self, address: Address, move: str, outline: Outline) -> None:
        """Take over the outline; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = _admitted(connection, address, move)
            queue.last_seq, queue.free, queue.claimed = outline.last, outline.free, outline.claimed
            queue.subscribed = outline.subscribed
            queue.save(connection)

        self._file.write(step)

    def reopen(self, address: Address, move: str) -> None:
        """Open the queue again; see the port."""

        def step(connection: sqlite3.Connection) -> dict[Address, Mark]:
            queue = load_queue(connection, address)
            if queue is None or queue.move != move:
                return {}
            if queue.shut == AWAY:
                drop_queue(connection, queue)
                return {}
            stop_watching(connection, queue)
            if queue.shut:
                queue.shut, queue.next_due = OPEN, 0  # whoever comes next finds out what is due
                queue.news += 1
            queue.save(connection)
            return {address: queue.mark}

        self._listener.tell(self._file.write(step))

    def discard(self, address: Address, move: str) -> None:
        """Drop the queue; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = _shut(connection, address, move)
            if queue is not None:
                drop_queue(connection, queue)

        self._file.write(step)


def _moving(connection: sqlite3.Connection, address: Address, move: str) -> QueueHeader:
    queue = load_queue(connection, address)
    if queue is None or queue.move != move or queue.shut == AWAY:
        raise MoveInterrupted
    return queue


def _shut(connection: sqlite3.Connection, address: Address, move: str) -> QueueHeader | None:
    queue = load_queue(connection, address)
    return queue if queue is not None and queue.shut and queue.move == move else None


def _admitted(connection: sqlite3.Connection, address: Address, move: str) -> QueueHeader:
    queue = _shut(connection, address, move)
    if queue is None or queue.shut != SHUT:
        raise MoveInterrupted
    return queue


def _changes(connection: sqlite3.Connection, queue: QueueHeader, since: int, limit: int) -> Cargo:
    touched = connection.execute(_SQL["touched_since"], (queue.pile, since, limit)).fetchall()
    keys: dict[int, list[object]] = {_MESSAGE: [], _CLAIM: [], _POST: []}
    for _, kind, key in touched:
        keys[kind].append(key)

    def some(statement: str, owner: int, kind: int) -> Sequence[Row]:
        return connection.execute(_SQL[statement], (owner, json.dumps(keys[kind]))).fetchall()

    messages = _messages(some("message_some", queue.pile, _MESSAGE))
    claims = _claims(connection, some("claim_some", queue.pile, _CLAIM))
    posts = _posts(some("post_some", queue.n, _POST))
    return Cargo(
        messages={key: messages.get(key) for key in keys[_MESSAGE] if isinstance(key, int)},
        claims={str(key): claims.get(str(key)) for key in keys[_CLAIM]},
        posts={str(key): posts.get(str(key)) for key in keys[_POST]},
        cursor=f"touched:{touched[-1][0] if touched else since}",
        caught_up=len(touched) < limit,
    )


def _messages(rows: Sequence[Row]) -> dict[int, KeptMessage]:
    return {
        row[0]: KeptMessage(
            sealed=sealed_of(row[6]),  # first: nothing else of a newer one can be read
            place=row[0],
            body=whole(row[1], row[9]),
            created=row[2],
            expires=row[3],
            visible=row[4],
            client_id=row[5],
            claim_id=row[7],
            claim_count=row[8],
        )
        for row in rows
    }


def _claims(connection: sqlite3.Connection, rows: Sequence[Row]) -> dict[str, KeptClaim]:
    return {
        id_: KeptClaim(
            id=id_,
            ttl=ttl,
            renewed=renewed,
            expires=expires,
            places=[row[0] for row in connection.execute(_SQL["claim_places"], (n,))],
        )
        for id_, ttl, renewed, expires, n in rows
    }


def _posts(rows: Sequence[Row]) -> dict[str, KeptPost]:
    return {
        key: KeptPost(key=key, fingerprint=fingerprint, first=first, count=count, expires=expires)
        for key, fingerprint, first, count, expires in rows
    }


def _load_messages(connection: sqlite3.Connection, queue: QueueHeader, cargo: Cargo) -> None:
    places = json.dumps(list(cargo.messages))
    old = connection.execute(_SQL["message_locate"], (queue.pile, places)).fetchall()
    connection.execute(_SQL["payload_delete"], (json.dumps([row[2] for row in old]),))
    connection.execute(_SQL["message_delete"], (queue.pile, places))
    (payload,) = connection.execute(_SQL["payload_last"]).fetchone()
    for message in cargo.messages.values():
        if message is None:
            continue
        payload += 1
        connection.execute(_SQL["payload_insert"], (payload, message.body, crc32(message.body)))
        claim = None if message.claim_id is None else _claim_number(connection, queue, message.claim_id)
        state = DELAYED if message.visible else READY
        connection.execute(
            _SQL["message_load"],
            (
                *(queue.pile, message.place, state if claim is None else CLAIMED),
                *(message.created, message.expires, message.visible or message.created),
                *(message.client_id, message.sealed, message.claim_count, claim, payload),
            ),
        )


def _load_claim(
    connection: sqlite3.Connection, queue: QueueHeader, id_: str, ttl: int, renewed: int, expires: int
) -> None:
    # An earlier stay of the queue may have left it, with messages that it must not hold now.
    connection.execute(_SQL["claim_evict"], (id_, queue.pile))
    connection.execute(_SQL["claim_load"], (id_, queue.pile, ttl, renewed, expires))


def _claim_number(connection: sqlite3.Connection, queue: QueueHeader, claim_id: str) -> int:
    found = connection.execute(_SQL["claim_number"], (claim_id, queue.pile)).fetchone()
    if found is None:  # it is on its way still
        _load_claim(connection, queue, claim_id, 0, 0, NEVER)
        found = connection.execute(_SQL["claim_number"], (claim_id, queue.pile)).fetchone()
    number: int = found[0]
    return number
