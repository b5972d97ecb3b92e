"""Pushes: what those who are connected are told of, in one log for each queue.

Whoever takes a ticket appends its notices to the log of the queue, once, however many
are connected and wherever; each process that has connections reads the log on from where it
was, and passes on what is new. The place of a notice in the log tells a subscriber whether it
missed something, and somebody who comes back goes on from there, as long as the log reaches
back so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from queues.identity import message_id, split_id
from queues.models import Address, Notice, Once, Selection, Ticket
from queues.ports import MessageStore
from queues.sealing import KeyRing
from queues.service.pools import PoolService
from queues.tickets import push_message, read_push

PAGE = 100  # notices that are read at once

_WINDOW = 3600  # seconds during which a ticket is appended once; each leaves a note in the store for so long


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """A place in the log of a queue."""

    place: int = 0  # 0 is before the first
    generation: str = ""  # of the log

    @property
    def marker(self) -> str | None:
        """The id of the notice there."""
        return message_id(self.place, self.generation) if self.place else None


@dataclass(frozen=True, slots=True)
class Pushed:
    """A notice in its place."""

    position: Position
    notice: Notice


class PushService:
    """Keeps the logs, in the default store; `retention` (seconds) is how far back they reach."""

    def __init__(self, pools: PoolService, keys: KeyRing, *, retention: int) -> None:
        self._pools = pools
        self._keys = keys
        self._retention = retention

    def append(self, ticket: Ticket) -> None:
        """Tell those who are connected of a ticket's messages; done again, it is done once.

        Raises StoreError.
        """
        store, once = self._store, Once(key=ticket.id, fingerprint=b"", window=_WINDOW)
        messages = [
            push_message(ticket, notice, self._retention, self._keys.seal) for notice in ticket.notices
        ]
        where = _log(ticket.address)
        store.post(where, messages, now=store.clock(), once=once, create=True, tickets=None)

    def end(self, address: Address) -> Position:
        """Return the place behind which comes whatever is told from now on."""
        outlook = self._store.outlook(_log(address), now=self._store.clock())
        return Position(place=outlook.last, generation=outlook.generation)

    def read(self, address: Address, after: Position) -> Sequence[Pushed]:
        """Return up to `PAGE` notices behind a place, in order.

        Raises Unsealable.
        """
        store, selection = self._store, Selection(marker=after.marker, limit=PAGE, include_claimed=True)
        return [
            Pushed(_position(message.id), read_push(message, self._keys.open))
            for message in store.list(_log(address), selection, now=store.clock())
        ]

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` when there may be something new in the log; return what ends that."""
        return self._store.watch(_log(address), wake)

    @property
    def _store(self) -> MessageStore:
        return self._pools.driver("").messages


def _log(address: Address) -> Address:
    return replace(address, queue=f"{address.queue}>pushed")


def _position(id_: str) -> Position:
    found = split_id(id_)
    if found is None:
        raise ValueError(f"{id_} is no id")
    return Position(place=found[0], generation=found[1])
