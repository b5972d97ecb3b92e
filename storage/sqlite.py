"""The SQLite driver: the embedded default, one file per pool, any number of processes on one machine.

A queue's header keeps exact counts and the next instant at which something of it
falls due (an expiry, the end of a claim or of a delay). Whoever meets a header
that is overdue first brings the queue up to date, so that everything else may
trust the states of the messages, and each change is paid for once.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy
from itertools import takewhile
from pathlib import Path
from typing import Final, TypeVar

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    FanOutChanged,
    KeyReused,
    MessageClaimed,
    QueueNotFound,
    StoreUnsupported,
)
from queues.identity import message_id, new_claim_id, place_of
from queues.models import (
    OUTBOX,
    Address,
    Claim,
    Claimed,
    DeadLetter,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Popped,
    Posted,
    Selection,
    Stats,
)
from storage.sqlite_file import SqliteFile
from storage.sqlite_queue import (
    AWAY,
    CLAIMED,
    DELAYED,
    NEVER,
    READY,
    QueueHeader,
    Row,
    create_queue,
    find_queue,
    load_queue,
    new_pile,
)
from storage.sqlite_records import SqliteRecords
from storage.sqlite_transfers import SqliteTransfers, drop_queue, stop_watching
from storage.statements import load

T = TypeVar("T")

_SQL: Final = load("sqlite/statements.sql")

_BATCH = 10_000  # rows that one statement reclaims at most


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> SqliteStore:
    """Open, or make, the file of `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    scheme, _, path = uri.partition(":///")
    if scheme != "sqlite" or not path or "?" in path:
        raise StoreUnsupported(f"A SQLite store is named by sqlite:///path, not {uri!r}.")
    return SqliteStore(SqliteFile(Path(path), timeout=timeout), clock or _wall_clock)


def _wall_clock() -> int:
    # One machine, one clock: every process on the file sees the same time.
    return time.time_ns() // 1_000_000


class SqliteStore:
    """Both ports over one file."""

    capabilities = ("FIFO", "CLAIMS", "DURABILITY", "AOD")

    def __init__(self, file: SqliteFile, clock: Callable[[], int]) -> None:
        self._file = file
        self.messages = SqliteMessages(file, clock)
        self.transfers = SqliteTransfers(file)
        self.records = SqliteRecords(file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class SqliteMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, file: SqliteFile, clock: Callable[[], int]) -> None:
        self._file = file
        self.clock = clock

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
        tickets: Sequence[NewMessage] | None = (),
    ) -> Posted:
        """Append messages; see the port."""

        def step(connection: sqlite3.Connection) -> Posted:
            queue = find_queue(connection, address)
            if queue is None:
                if not create:
                    raise QueueNotFound
                queue = create_queue(connection, address)
                queue.subscribed = int(bool(tickets))
            if once is not None and (earlier := _repeated(connection, queue, once, now)):
                return earlier
            if tickets is not None and queue.subscribed != bool(tickets):
                raise FanOutChanged(subscribed=bool(queue.subscribed))
            if tickets:
                outbox = find_queue(connection, OUTBOX) or create_queue(connection, OUTBOX)
                _append(connection, outbox, tickets, now)
            first = queue.last_seq + 1
            _append(connection, queue, messages, now)
            if once is not None:
                connection.execute(
                    _SQL["once_insert"],
                    (queue.n, once.key, once.fingerprint, first, len(messages), now + once.window * 1000),
                )
            return Posted(ids=_ids(queue, first, len(messages)))

        return self._file.write(step)

    def subscribe(self, address: Address, *, subscribed: bool) -> None:
        """Note whether there are subscribers; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = find_queue(connection, address) or create_queue(connection, address)
            queue.subscribed = int(subscribed)
            queue.save(connection)

        self._file.write(step)

    def outboxes(self) -> Sequence[Address]:
        """Return the one there is; see the port."""
        return (OUTBOX,)

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""

        def look(connection: sqlite3.Connection, queue: QueueHeader) -> Sequence[Message]:
            rows = connection.execute(_SQL["message_get"], (queue.pile, queue.places(ids)))
            return [queue.message(row) for row in rows]

        return self._look(address, now, look, absent=[])

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""

        def look(connection: sqlite3.Connection, queue: QueueHeader) -> Sequence[Message]:
            after: int | None = 0
            if selection.marker is not None:
                after = place_of(selection.marker, queue.generation)
            hidden = selection.hide_client
            if after is None or (hidden is not None and hidden == queue.only_client):
                return []
            rows = connection.execute(
                _SQL["message_list"],
                {
                    "pile": queue.pile,
                    "after": after,
                    "limit": selection.limit,
                    "hide": hidden,
                    "claimed": selection.include_claimed,
                    "delayed": selection.include_delayed,
                },
            )
            return [queue.message(row) for row in rows]

        return self._look(address, now, look, absent=[])

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> None:
            for row in connection.execute(
                _SQL["message_locate"], (queue.pile, queue.places([message_id]))
            ).fetchall():
                holder = row[3]
                if holder != claim_id:
                    if claim_id is not None and (
                        holder is None or _find_claim(connection, queue, claim_id) is None
                    ):
                        raise ClaimNotHeld
                    raise MessageClaimed
                _remove(connection, queue, [row])

        self._change(address, now, step, absent=None)

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete messages by id; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> None:
            rows = connection.execute(_SQL["message_locate"], (queue.pile, queue.places(ids))).fetchall()
            if claim_ids is not None and any(row[3] is not None and row[3] not in claim_ids for row in rows):
                raise MessageClaimed
            _remove(connection, queue, rows)

        self._change(address, now, step, absent=None)

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> Popped:
            ready = connection.execute(_SQL["message_ready"], (queue.pile, limit)).fetchall()
            rows = list(takewhile(lambda row: not row[4], ready))
            places = json.dumps([row[0] for row in rows])
            found = connection.execute(_SQL["message_get"], (queue.pile, places)).fetchall()
            _remove(connection, queue, rows)
            messages = [queue.message(row) for row in found]
            return Popped(messages=messages, sealed_next=len(rows) < len(ready))

        return self._change(address, now, step, absent=Popped(messages=[]))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> Claimed:
            buried = 0
            while True:
                ready = connection.execute(_SQL["message_ready"], (queue.pile, lease.limit)).fetchall()
                doomed = _doomed(ready, address, lease.dead_letter)
                if not doomed or lease.dead_letter is None:
                    break
                _bury(connection, queue, doomed, lease.dead_letter, now)
                buried += len(doomed)
            if not ready:
                return Claimed(claim=None, dead_lettered=buried)
            return Claimed(
                claim=_lease(connection, queue, lease, last=ready[-1][0], now=now),
                dead_lettered=buried,
            )

        return self._change(address, now, step, absent=Claimed(claim=None))

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""

        def look(connection: sqlite3.Connection, queue: QueueHeader) -> Claim | None:
            found = _find_claim(connection, queue, claim_id)
            if found is None:
                return None
            n, ttl, renewed, expires = found
            rows = connection.execute(_SQL["message_of_claim"], (n,))
            return Claim(
                id=claim_id,
                ttl=ttl,
                renewed=renewed,
                expires=expires,
                messages=[queue.message(row) for row in rows],
            )

        claim = self._look(address, now, look, absent=None)
        if claim is None:
            raise ClaimNotFound
        return claim

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> bool:
            found = _find_claim(connection, queue, claim_id)
            if found is None:
                raise ClaimNotFound
            until = now + lease.ttl * 1000
            connection.execute(_SQL["claim_renew"], (lease.ttl, now, until, found[0]))
            connection.execute(
                _SQL["message_extend"],
                {"until": until, "grace": lease.grace * 1000, "claim": found[0]},
            )
            queue.expect(until)
            return True

        if not self._change(address, now, step, absent=False):
            raise ClaimNotFound

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> None:
            found = _find_claim(connection, queue, claim_id)
            if found is not None:
                _free(connection, queue, [found[0]])

        self._change(address, now, step, absent=None)

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""

        def look(connection: sqlite3.Connection, queue: QueueHeader) -> Stats:
            def landmark(statement: str) -> Landmark | None:
                row = connection.execute(_SQL[statement], (queue.pile,)).fetchone()
                return row and Landmark(id=message_id(row[0], queue.generation), created=row[1])

            return Stats(
                free=queue.free,
                claimed=queue.claimed,
                oldest=landmark("message_oldest"),
                newest=landmark("message_newest"),
            )

        return self._look(address, now, look, absent=Stats())

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> None:
            stop_watching(connection, queue)
            connection.execute(_SQL["pile_abandon"], (queue.pile,))
            queue.pile = new_pile(connection)
            queue.free = queue.claimed = 0
            queue.next_due = NEVER

        self._change(address, now, step, absent=None)

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = load_queue(connection, address)
            if queue is not None:
                drop_queue(connection, queue)

        self._file.write(step)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over; see the port."""
        with self._file.snapshot() as connection:
            idle = (
                connection.execute(_SQL["queues_due"], (now, 1)).fetchone() is None
                and connection.execute(_SQL["pile_abandoned"]).fetchone() is None
                and not connection.execute(_SQL["once_due"], (now,)).fetchone()[0]
            )
        if idle:
            return 0

        def step(connection: sqlite3.Connection) -> int:
            done = _settle_due(connection, now, limit)
            if done < limit:
                done += _clear_abandoned(connection, limit - done)
            if done < limit:
                keys = connection.execute(_SQL["once_expired"], (now, limit - done)).fetchall()
                connection.executemany(_SQL["once_delete"], keys)
                done += len(keys)
            return done

        return self._file.write(step)

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""

        def step(connection: sqlite3.Connection) -> Stats:
            while _settle_due(connection, now, _BATCH) >= _BATCH:
                pass
            free, claimed = connection.execute(_SQL["queue_totals"]).fetchone()
            return Stats(free=free, claimed=claimed)

        return self._file.write(step)

    def joins(self, one: Address, other: Address) -> bool:
        """Tell that a file has one lock; see the port."""
        return True

    def durability(self) -> Durability:
        """Tell how the file is written; see the port."""

        def ask(connection: sqlite3.Connection, pragma: str) -> str:
            return str(connection.execute(f"PRAGMA {pragma}").fetchone()[0])

        with self._file.snapshot() as connection:
            synchronous = {"0": "off", "1": "normal", "2": "full", "3": "extra"}[
                ask(connection, "synchronous")
            ]
            facts = {
                "file": str(self._file.path.absolute()),
                "journal_mode": ask(connection, "journal_mode"),
                "synchronous": synchronous,
                "version of the tables": ask(connection, "user_version"),
                "SQLite": sqlite3.sqlite_version,
            }
        return Durability(driver="sqlite", facts=facts)

    def _look(
        self,
        address: Address,
        now: int,
        look: Callable[[sqlite3.Connection, QueueHeader], T],
        *,
        absent: T,
    ) -> T:
        with self._file.snapshot() as connection:
            queue = find_queue(connection, address)
            if queue is None:
                return absent
            if queue.next_due > now:
                return look(connection, queue)
        return self._change(address, now, look, absent=absent)

    def _change(
        self,
        address: Address,
        now: int,
        change: Callable[[sqlite3.Connection, QueueHeader], T],
        *,
        absent: T,
    ) -> T:
        def step(connection: sqlite3.Connection) -> T:
            queue = find_queue(connection, address)
            if queue is None:
                return absent
            before = copy(queue)
            while queue.next_due <= now:
                _settle(connection, queue, now, _BATCH)
            value = change(connection, queue)
            if queue != before:  # otherwise a consumer of an empty queue would keep the disk busy
                queue.save(connection)
            return value

        return self._file.write(step)


def _ids(queue: QueueHeader, first: int, count: int) -> list[str]:
    return [message_id(place, queue.generation) for place in range(first, first + count)]


def _repeated(connection: sqlite3.Connection, queue: QueueHeader, once: Once, now: int) -> Posted | None:
    row = connection.execute(_SQL["once_find"], (queue.n, once.key, now)).fetchone()
    if row is None:
        return None
    fingerprint, first, count = row
    if fingerprint != once.fingerprint:
        raise KeyReused
    return Posted(ids=_ids(queue, first, count), repeated=True)


def _append(
    connection: sqlite3.Connection, queue: QueueHeader, messages: Sequence[NewMessage], now: int
) -> None:
    (payload,) = connection.execute(_SQL["payload_last"]).fetchone()
    connection.executemany(
        _SQL["payload_insert"], [(payload + i, message.body) for i, message in enumerate(messages, 1)]
    )
    rows = [
        (
            queue.pile,
            queue.last_seq + i,
            DELAYED if message.delay > 0 else READY,
            life.created,
            life.expires,
            now + message.delay * 1000,
            message.client_id,
            message.sealed,
            payload + i,
        )
        for i, message in enumerate(messages, 1)
        for life in (message.life_from(now),)
    ]
    connection.executemany(_SQL["message_insert"], rows)
    for _, _, state, _, expires, visible, *_ in rows:
        queue.expect(min(expires, visible) if state == DELAYED else expires)
    clients: set[str | None] = {message.client_id for message in messages}
    if queue.free + queue.claimed > 0:
        clients.add(queue.only_client)
    queue.only_client = clients.pop() if len(clients) == 1 else None
    queue.last_seq += len(rows)
    queue.free += len(rows)
    queue.save(connection)


def _remove(connection: sqlite3.Connection, queue: QueueHeader, rows: Sequence[Row]) -> None:
    """Delete messages given as rows that begin with (seq, state, payload)."""
    if not rows:
        return
    connection.execute(_SQL["payload_delete"], (json.dumps([row[2] for row in rows]),))
    connection.execute(_SQL["message_delete"], (queue.pile, json.dumps([row[0] for row in rows])))
    claimed = sum(row[1] == CLAIMED for row in rows)
    queue.claimed -= claimed
    queue.free -= len(rows) - claimed


def _doomed(ready: Sequence[Row], source: Address, dead_letter: DeadLetter | None) -> Sequence[Row]:
    if dead_letter is None or dead_letter.address == source:
        return ()
    return [row for row in ready if row[3] >= dead_letter.max_claims]


def _bury(
    connection: sqlite3.Connection,
    queue: QueueHeader,
    doomed: Sequence[Row],
    dead_letter: DeadLetter,
    now: int,
) -> None:
    target = find_queue(connection, dead_letter.address) or create_queue(connection, dead_letter.address)
    moment = {
        "created": None if dead_letter.ttl is None else now,
        "expires": None if dead_letter.ttl is None else now + dead_letter.ttl * 1000,
    }
    for row in doomed:
        target.last_seq += 1
        places = {"pile": queue.pile, "seq": row[0], "to_pile": target.pile, "to_seq": target.last_seq}
        target.expect(connection.execute(_SQL["message_bury"], places | moment).fetchone()[0])
    queue.free -= len(doomed)
    target.free += len(doomed)
    target.only_client = None
    target.save(connection)


def _lease(connection: sqlite3.Connection, queue: QueueHeader, lease: Lease, *, last: int, now: int) -> Claim:
    id_, until = new_claim_id(), now + lease.ttl * 1000
    n = connection.execute(_SQL["claim_insert"], (id_, queue.pile, lease.ttl, now, until)).lastrowid
    count = connection.execute(
        _SQL["message_claim"],
        {"claim": n, "until": until, "grace": lease.grace * 1000, "pile": queue.pile, "last": last},
    ).rowcount
    queue.free -= count
    queue.claimed += count
    queue.expect(until)
    rows = connection.execute(_SQL["message_of_claim"], (n,))
    return Claim(
        id=id_,
        ttl=lease.ttl,
        renewed=now,
        expires=until,
        messages=[queue.message(row) for row in rows],
    )


def _find_claim(
    connection: sqlite3.Connection, queue: QueueHeader, claim_id: str
) -> tuple[int, int, int, int] | None:
    """Return (n, ttl, renewed, expires) of a live claim of a queue that is up to date."""
    row: tuple[int, int, int, int] | None = connection.execute(
        _SQL["claim_find"], (claim_id, queue.pile)
    ).fetchone()
    return row


def _free(connection: sqlite3.Connection, queue: QueueHeader, claims: Sequence[int]) -> int:
    """End claims; return how many messages they held."""
    numbers = json.dumps(claims)
    count = connection.execute(_SQL["message_release"], (numbers,)).rowcount
    connection.execute(_SQL["claim_delete"], (numbers,))
    queue.claimed -= count
    queue.free += count
    return count


def _settle(connection: sqlite3.Connection, queue: QueueHeader, now: int, limit: int) -> int:
    """Let take place what fell due, about `limit` rows of it; return how many rows that was.

    `next_due` is moved on only when nothing overdue is left.
    """
    expired = connection.execute(_SQL["message_expired"], (queue.pile, now, limit)).fetchall()
    _remove(connection, queue, expired)
    over = [row[0] for row in connection.execute(_SQL["claim_expired"], (queue.pile, now, limit))]
    freed = _free(connection, queue, over) if over else 0
    matured = connection.execute(_SQL["message_mature"], (queue.pile, now)).rowcount
    (due,) = connection.execute(_SQL["next_due"], {"pile": queue.pile}).fetchone()
    queue.next_due = NEVER if due is None else due
    return len(expired) + len(over) + freed + matured


def _settle_due(connection: sqlite3.Connection, now: int, limit: int) -> int:
    """Settle queues that are overdue, about `limit` rows of them; return how many rows that was."""
    done = 0
    while done < limit:
        numbers = connection.execute(_SQL["queues_due"], (now, limit - done)).fetchall()
        if not numbers:
            break
        for (n,) in numbers:
            queue = QueueHeader(*connection.execute(_SQL["queue_load_by_number"], (n,)).fetchone())
            if queue.shut == AWAY:  # what moved away is forgotten
                drop_queue(connection, queue)
                done += 1
            else:
                done += 1 + _settle(connection, queue, now, max(1, limit - done))
                queue.save(connection)
            if done >= limit:
                break
    return done


def _clear_abandoned(connection: sqlite3.Connection, limit: int) -> int:
    """Delete what purged and dropped queues left, up to `limit` rows; return how many."""
    done = 0
    while done < limit and (found := connection.execute(_SQL["pile_abandoned"]).fetchone()):
        (pile,) = found
        rows = connection.execute(_SQL["message_any"], (pile, limit - done)).fetchall()
        connection.execute(_SQL["payload_delete"], (json.dumps([row[2] for row in rows]),))
        connection.execute(_SQL["message_delete"], (pile, json.dumps([row[0] for row in rows])))
        claims = [row[0] for row in connection.execute(_SQL["claim_any"], (pile, limit - done))]
        connection.execute(_SQL["claim_delete"], (json.dumps(claims),))
        if not rows and not claims:
            connection.execute(_SQL["pile_delete"], (pile,))
            done += 1
        done += len(rows) + len(claims)
    return done
