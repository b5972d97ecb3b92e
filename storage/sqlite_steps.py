"""The steps that transactions on a queue in SQLite are made of."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from queues.errors import KeyReused, StoreDamaged
from queues.identity import message_id, new_claim_id
from queues.models import Address, Claim, DeadLetter, Lease, NewMessage, Once, Posted
from storage.sqlite_queue import (
    AWAY,
    CLAIMED,
    DELAYED,
    NEVER,
    READY,
    Mark,
    QueueHeader,
    Row,
    create_queue,
    find_queue,
)
from storage.sqlite_transfers import drop_queue
from storage.statements import load

_SQL: Final = load("sqlite/statements.sql")


def ids_from(queue: QueueHeader, first: int, count: int) -> list[str]:
    """Return the ids of some places in a row."""
    return [message_id(place, queue.generation) for place in range(first, first + count)]


def repeated(connection: sqlite3.Connection, queue: QueueHeader, once: Once, now: int) -> Posted | None:
    """Return what an earlier post with the same key answered, or None; raises KeyReused."""
    row = connection.execute(_SQL["once_find"], (queue.n, once.key, now)).fetchone()
    if row is None:
        return None
    fingerprint, first, count = row
    if fingerprint != once.fingerprint:
        raise KeyReused
    return Posted(ids=ids_from(queue, first, count), repeated=True)


def append(
    connection: sqlite3.Connection, queue: QueueHeader, messages: Sequence[NewMessage], now: int
) -> None:
    """Put messages at the end, which is news; there is one at least."""
    payloads = [(None, message.body, crc32(message.body)) for message in messages]
    # Nobody else writes meanwhile, so their numbers follow each other.
    payload = connection.execute(_SQL["payload_insert"], payloads[0]).lastrowid
    assert payload is not None  # noqa: S101 - an INSERT has a row
    connection.executemany(_SQL["payload_insert"], payloads[1:])
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
            payload + i - 1,
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
    queue.news += 1
    queue.save(connection)


def remove(connection: sqlite3.Connection, queue: QueueHeader, rows: Sequence[Row]) -> None:
    """Delete messages given as rows that begin with (seq, state, payload)."""
    if not rows:
        return
    connection.execute(_SQL["payload_delete"], (json.dumps([row[2] for row in rows]),))
    connection.execute(_SQL["message_delete"], (queue.pile, json.dumps([row[0] for row in rows])))
    claimed = sum(row[1] == CLAIMED for row in rows)
    queue.claimed -= claimed
    queue.free -= len(rows) - claimed


def find_doomed(ready: Sequence[Row], source: Address, dead_letter: DeadLetter | None) -> Sequence[Row]:
    """Return those of the messages that were claimed too often."""
    if dead_letter is None or dead_letter.address == source:
        return ()
    return [row for row in ready if row[3] >= dead_letter.max_claims]


def bury(
    connection: sqlite3.Connection,
    queue: QueueHeader,
    doomed: Sequence[Row],
    dead_letter: DeadLetter,
    now: int,
) -> Mark:
    """Move messages to the end of their dead-letter queue; return how far its news have come."""
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
    target.news += 1
    target.save(connection)
    return target.mark


def take_lease(
    connection: sqlite3.Connection, queue: QueueHeader, lease: Lease, *, last: int, now: int
) -> Claim:
    """Give what is ready up to a place to a new claim, and count that it is handed out."""
    id_, until = new_claim_id(), now + lease.ttl * 1000
    n = connection.execute(_SQL["claim_insert"], (id_, queue.pile, lease.ttl, now, until)).lastrowid
    claimed = {"claim": n, "pile": queue.pile, "last": last}
    count = connection.execute(_SQL["message_claim"], claimed).rowcount
    # By itself, for most messages outlive their claims anyway, and an index is written for each that has to.
    extended = {"claim": n, "until": until, "grace": lease.grace * 1000}
    connection.execute(_SQL["message_extend"], extended)
    queue.free -= count
    queue.claimed += count
    queue.expect(until)
    rows = connection.execute(_SQL["message_of_claim"], (n,)).fetchall()
    if len(rows) != count:
        raise StoreDamaged("The SQLite file is damaged: a queue and its index do not agree.")
    return Claim(
        id=id_,
        ttl=lease.ttl,
        renewed=now,
        expires=until,
        messages=[queue.message(row) for row in rows],
    )


def find_claim(
    connection: sqlite3.Connection, queue: QueueHeader, claim_id: str
) -> tuple[int, int, int, int] | None:
    """Return (n, ttl, renewed, expires) of a live claim of a queue that is up to date."""
    row: tuple[int, int, int, int] | None = connection.execute(
        _SQL["claim_find"], (claim_id, queue.pile)
    ).fetchone()
    return row


def end_claims(connection: sqlite3.Connection, queue: QueueHeader, claims: Sequence[int]) -> int:
    """End claims; return how many messages they held."""
    numbers = json.dumps(claims)
    count = connection.execute(_SQL["message_release"], (numbers,)).rowcount
    connection.execute(_SQL["claim_delete"], (numbers,))
    queue.claimed -= count
    queue.free += count
    return count


def settle(connection: sqlite3.Connection, queue: QueueHeader, now: int, limit: int) -> int:
    """Let take place what fell due, about `limit` rows of it; return how many rows that was.

    `next_due` is moved on only when nothing overdue is left.
    """
    expired = connection.execute(_SQL["message_expired"], (queue.pile, now, limit)).fetchall()
    remove(connection, queue, expired)
    over = [row[0] for row in connection.execute(_SQL["claim_expired"], (queue.pile, now, limit))]
    freed = end_claims(connection, queue, over) if over else 0
    matured = connection.execute(_SQL["message_mature"], (queue.pile, now)).rowcount
    (due,) = connection.execute(_SQL["next_due"], {"pile": queue.pile}).fetchone()
    queue.next_due = NEVER if due is None else due
    return len(expired) + len(over) + freed + matured


def settle_due(connection: sqlite3.Connection, now: int, limit: int) -> int:
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
                done += 1 + settle(connection, queue, now, max(1, limit - done))
                queue.save(connection)
            if done >= limit:
                break
    return done


def clear_abandoned(connection: sqlite3.Connection, limit: int) -> int:
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
