"""The header of a queue in SQLite: everything about it that has to be exact and cheap to know."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from zlib import crc32

from queues.errors import QueueMoved, StoreDamaged
from queues.identity import message_id, new_generation, place_of
from queues.models import Address, Message
from queues.versions import sealed_of
from storage.statements import load

_SQL: Final = load("sqlite/statements.sql")

#: States of a message.
READY, DELAYED, CLAIMED = 0, 1, 2

#: States of a queue.
OPEN, SHUT, AWAY = 0, 1, 2

NEVER: Final = 2**63 - 1

#: How far the news of a queue have come: its number in the table, and how much was new in it so far. Marks of one
#: address only grow, for a queue that is made anew has a higher number.
Mark: TypeAlias = tuple[int, int]

#: A message as a statement returns it.
Row: TypeAlias = tuple[Any, ...]


@dataclass(slots=True)
class QueueHeader:
    """A queue's header while a step works on it; see the table `queue`."""

    n: int
    generation: str
    pile: int
    last_seq: int
    free: int
    claimed: int
    next_due: int
    only_client: str | None = None
    move: str | None = None
    shut: int = OPEN
    subscribed: str = ""
    news: int = 0

    @property
    def mark(self) -> Mark:
        """How far the news have come."""
        return self.n, self.news

    def expect(self, due: int) -> None:
        """Note that something falls due."""
        self.next_due = min(self.next_due, due)

    def save(self, connection: sqlite3.Connection) -> None:
        """Write the header back."""
        connection.execute(
            _SQL["queue_save"],
            (
                *(self.pile, self.last_seq, self.free, self.claimed, self.next_due, self.only_client),
                *(self.move, self.shut, self.subscribed, self.news, self.n),
            ),
        )

    def message(self, row: Row) -> Message:
        """Build a message from (seq, body, created, expires, client, form, claim id, claims, checksum).

        Raises StoreUnsupported if the message is newer than this release; the column of its form is called `sealed`.
        """
        return Message(
            sealed=sealed_of(row[5]),  # first: nothing else of a newer one can be read
            id=message_id(row[0], self.generation),
            body=whole(row[1], row[8]),
            created=row[2],
            expires=row[3],
            client_id=row[4],
            claim_id=row[6],
            claim_count=row[7],
        )

    def places(self, ids: Iterable[str]) -> str:
        """Return the places that the ids name, those of other queues left out, as JSON."""
        places = (place_of(id_, self.generation) for id_ in ids)
        return json.dumps([place for place in places if place is not None])


def whole(body: bytes | None, checksum: int | None) -> bytes:
    """Return a body as it was stored. Raises StoreDamaged if it is not what it was, or gone."""
    if body is None or crc32(body) != checksum:
        raise StoreDamaged("The SQLite file is damaged: the body of a message is not what was stored.")
    return body


def load_queue(connection: sqlite3.Connection, address: Address) -> QueueHeader | None:
    """Return a queue's header, shut or not; None where there is none."""
    row = connection.execute(_SQL["queue_load"], (address.project, address.queue)).fetchone()
    return row and QueueHeader(*row)


def find_queue(connection: sqlite3.Connection, address: Address) -> QueueHeader | None:
    """Return a queue's header; None where there is none. Raises QueueMoved if it is shut."""
    queue = load_queue(connection, address)
    if queue is not None and queue.shut:
        raise QueueMoved(address, queue.move or "")
    return queue


def create_queue(connection: sqlite3.Connection, address: Address) -> QueueHeader:
    """Make a queue that is not there."""
    generation, pile = new_generation(), new_pile(connection)
    n = connection.execute(
        _SQL["queue_insert"], (address.project, address.queue, generation, pile, NEVER)
    ).lastrowid
    assert n is not None  # noqa: S101 - an INSERT has a row
    return QueueHeader(n, generation, pile, 0, 0, 0, NEVER)


def new_pile(connection: sqlite3.Connection) -> int:
    """Draw the number of an empty pile."""
    pile = connection.execute(_SQL["pile_insert"]).lastrowid
    assert pile is not None  # noqa: S101 - an INSERT has a row
    return pile
