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
from typing import Final, TypeVar

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    FanOutChanged,
    MessageClaimed,
    QueueNotFound,
    StoreDamaged,
)
from queues.identity import message_id, place_of
from queues.models import (
    OUTBOX,
    Address,
    Claim,
    Claimed,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Outlook,
    Popped,
    Posted,
    Selection,
    Stats,
)
from queues.versions import sealed_of
from storage.sqlite_file import SqliteFile
from storage.sqlite_layout import SqliteLayout
from storage.sqlite_listener import SqliteListener
from storage.sqlite_queue import (
    NEVER,
    Mark,
    QueueHeader,
    create_queue,
    find_queue,
    load_queue,
    new_pile,
)
from storage.sqlite_records import SqliteRecords
from storage.sqlite_steps import (
    append,
    bury,
    clear_abandoned,
    end_claims,
    find_claim,
    find_doomed,
    ids_from,
    remove,
    repeated,
    settle,
    settle_due,
    take_lease,
)
from storage.sqlite_transfers import SqliteTransfers, drop_queue, stop_watching
from storage.sqlite_uri import parse
from storage.statements import load

T = TypeVar("T")

_SQL: Final = load("sqlite/statements.sql")

_BATCH = 10_000  # rows that one statement reclaims at most


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> SqliteStore:
    """Open, or make, the file that a URI names; see `storage.sqlite_uri`."""
    named = parse(uri)
    return SqliteStore(
        SqliteFile(named.path, timeout=timeout, quick_check=named.quick_check), clock or _wall_clock
    )


def _wall_clock() -> int:
    # One machine, one clock: every process on the file sees the same time.
    return time.time_ns() // 1_000_000


class SqliteStore:
    """Both ports over one file."""

    capabilities = ("FIFO", "CLAIMS", "DURABILITY", "AOD")

    def __init__(self, file: SqliteFile, clock: Callable[[], int]) -> None:
        self._file = file
        self._listener = SqliteListener(file)
        self.messages = SqliteMessages(file, self._listener, clock)
        self.transfers = SqliteTransfers(file, self._listener)
        self.records = SqliteRecords(file)
        self.layout = SqliteLayout(file)

    def close(self) -> None:
        """Close the file."""
        self._listener.close()
        self._file.close()


class SqliteMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, file: SqliteFile, listener: SqliteListener, clock: Callable[[], int]) -> None:
        self._file = file
        self._listener = listener
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
        news: dict[Address, Mark] = {}

        def step(connection: sqlite3.Connection) -> Posted:
            news.clear()  # a step may be run again
            queue = find_queue(connection, address)
            if queue is None:
                if not create:
                    raise QueueNotFound
                queue = create_queue(connection, address)
                queue.subscribed = "post" if tickets else ""
            if once is not None and (earlier := repeated(connection, queue, once, now)):
                return earlier
            if tickets is not None and bool(queue.subscribed) != bool(tickets):
                raise FanOutChanged(subscribed=bool(queue.subscribed))
            if tickets:
                outbox = find_queue(connection, OUTBOX) or create_queue(connection, OUTBOX)
                append(connection, outbox, tickets, now)
                news[OUTBOX] = outbox.mark
            first = queue.last_seq + 1
            append(connection, queue, messages, now)
            news[address] = queue.mark
            if once is not None:
                connection.execute(
                    _SQL["once_insert"],
                    (queue.n, once.key, once.fingerprint, first, len(messages), now + once.window * 1000),
                )
            return Posted(ids=ids_from(queue, first, len(messages)))

        posted = self._file.write(step)
        self._listener.tell(news)
        return posted

    def subscribe(self, address: Address, stamp: str) -> None:
        """Note that there are subscribers; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = find_queue(connection, address) or create_queue(connection, address)
            queue.subscribed = stamp
            queue.save(connection)

        self._file.write(step)

    def unsubscribe(self, address: Address, stamp: str) -> None:
        """Note that there are no subscribers; see the port."""

        def step(connection: sqlite3.Connection) -> None:
            queue = find_queue(connection, address)
            if queue is not None and queue.subscribed == stamp:
                queue.subscribed = ""
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
                        holder is None or find_claim(connection, queue, claim_id) is None
                    ):
                        raise ClaimNotHeld
                    raise MessageClaimed
                remove(connection, queue, [row])

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
            remove(connection, queue, rows)

        self._change(address, now, step, absent=None)

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> Popped:
            ready = connection.execute(_SQL["message_ready"], (queue.pile, limit)).fetchall()
            rows = list(takewhile(lambda row: not row[4], ready))
            sealed_next = len(rows) < len(ready) and sealed_of(ready[len(rows)][4])
            places = json.dumps([row[0] for row in rows])
            found = connection.execute(_SQL["message_get"], (queue.pile, places)).fetchall()
            if len(found) != len(rows):
                raise StoreDamaged("The SQLite file is damaged: a queue and its index do not agree.")
            remove(connection, queue, rows)
            messages = [queue.message(row) for row in found]
            return Popped(messages=messages, sealed_next=sealed_next)

        return self._change(address, now, step, absent=Popped(messages=[]))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""
        news: dict[Address, Mark] = {}

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> Claimed:
            news.clear()  # a step may be run again
            buried = 0
            while True:
                ready = connection.execute(_SQL["message_ready"], (queue.pile, lease.limit)).fetchall()
                doomed = find_doomed(ready, address, lease.dead_letter)
                if not doomed or lease.dead_letter is None:
                    break
                news[lease.dead_letter.address] = bury(connection, queue, doomed, lease.dead_letter, now)
                buried += len(doomed)
            if not ready:
                return Claimed(claim=None, dead_lettered=buried)
            return Claimed(
                claim=take_lease(connection, queue, lease, last=ready[-1][0], now=now),
                dead_lettered=buried,
            )

        claimed = self._change(address, now, step, absent=Claimed(claim=None))
        self._listener.tell(news)
        return claimed

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""

        def look(connection: sqlite3.Connection, queue: QueueHeader) -> Claim | None:
            found = find_claim(connection, queue, claim_id)
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

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> Mark:
            found = find_claim(connection, queue, claim_id)
            if found is None:
                raise ClaimNotFound
            until = now + lease.ttl * 1000
            connection.execute(_SQL["claim_renew"], (lease.ttl, now, until, found[0]))
            connection.execute(
                _SQL["message_extend"],
                {"until": until, "grace": lease.grace * 1000, "claim": found[0]},
            )
            queue.expect(until)
            if until < found[3]:
                queue.news += 1
            return queue.mark

        mark = self._change(address, now, step, absent=None)
        if mark is None:
            raise ClaimNotFound
        self._listener.tell({address: mark})

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""

        def step(connection: sqlite3.Connection, queue: QueueHeader) -> dict[Address, Mark]:
            found = find_claim(connection, queue, claim_id)
            if found is None:
                return {}
            if end_claims(connection, queue, [found[0]]):
                queue.news += 1
            return {address: queue.mark}

        self._listener.tell(self._change(address, now, step, absent={}))

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when something is new; see the port."""
        return self._listener.watch(address, wake)

    def outlook(self, address: Address, *, now: int) -> Outlook:
        """Return what is to come; see the port."""

        def look(_: sqlite3.Connection, queue: QueueHeader) -> Outlook:
            due = None if queue.next_due == NEVER else queue.next_due
            return Outlook(generation=queue.generation, last=queue.last_seq, due=due)

        return self._look(address, now, look, absent=Outlook())

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
            done = settle_due(connection, now, limit)
            if done < limit:
                done += clear_abandoned(connection, limit - done)
            if done < limit:
                keys = connection.execute(_SQL["once_expired"], (now, limit - done)).fetchall()
                connection.executemany(_SQL["once_delete"], keys)
                done += len(keys)
            return done

        return self._file.write(step)

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""

        def step(connection: sqlite3.Connection) -> Stats:
            while settle_due(connection, now, _BATCH) >= _BATCH:
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
                settle(connection, queue, now, _BATCH)
            value = change(connection, queue)
            if queue != before:  # otherwise a consumer of an empty queue would keep the disk busy
                queue.save(connection)
            return value

        return self._file.write(step)
