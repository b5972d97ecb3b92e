"""Deliveries: what is still to be told to whom, and what became of the rest.

A post to a queue with subscribers leaves a ticket in the outbox of its store, in the
same step. Whoever takes a ticket (a lease, as on any message) tells the subscribers,
keeps what did not get through as pending deliveries, and only then settles the
ticket. A crash in between repeats what was done; nothing is forgotten.

What was given up lies, for a while, in the default store, where its owner can look
at it and have it sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import msgspec

from queues.errors import Invalid, Unsealable
from queues.limits import Limits, page_limit
from queues.models import (
    Address,
    Attempt,
    DeliveryCounts,
    Lease,
    Message,
    Once,
    PendingDelivery,
    Record,
    Selection,
    Ticket,
)
from queues.ports import MessageStore, RecordStore
from queues.sealing import KeyRing
from queues.service.catalogue import subscriptions_scope
from queues.service.pools import PoolService
from queues.service.waiting import Line
from queues.tickets import pending_message, read_pending, read_ticket

T = TypeVar("T")

#: Where pending deliveries wait, in the store of their tickets.
PENDING = Address(project="", queue="deliveries")

LEASE = 60  # seconds that whoever takes tickets or deliveries has for them, unless it is set otherwise

_COUNTS = "delivery"
_HISTORY = 20  # attempts that are kept of each subscription
_ATTEMPTS = 20  # to change a record that others keep changing
_PAGE = 100  # dead letters looked at at once
_WINDOW = 86_400  # seconds during which the same thing, done again, is recognised


@dataclass(frozen=True, slots=True)
class Box:
    """Where tickets, or deliveries that are due later, wait."""

    pool: str  # "" is the default store
    address: Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one lease holds: tickets, or pending deliveries that are due."""

    pool: str
    address: Address  # the queue that they are in
    claim_id: str
    taken: int  # ms; when it was
    tickets: Sequence[Ticket] = ()
    pending: Sequence[PendingDelivery] = ()


class DeliveryService:
    """Hands out tickets and pending deliveries, and keeps what becomes of them.

    `clock` gives ms since the epoch. `dead_letter_ttl` (seconds) is how long what was
    given up can be looked at, `lease` (seconds) how long somebody who takes something
    has for it.
    """

    def __init__(
        self,
        records: RecordStore,
        pools: PoolService,
        limits: Limits,
        keys: KeyRing,
        clock: Callable[[], int],
        *,
        dead_letter_ttl: int,
        lease: int = LEASE,
    ) -> None:
        self._records = records
        self._pools = pools
        self._limits = limits
        self._keys = keys
        self._clock = clock
        self._dead_letter_ttl = dead_letter_ttl
        self.lease = lease

    def boxes(self) -> Sequence[Box]:
        """Return where tickets and deliveries may be.

        Raises StoreError.
        """
        return [
            Box(pool, address)
            for pool in self._pools.names()
            for address in (*self._pools.driver(pool).messages.outboxes(), PENDING)
        ]

    def take(self, box: Box, limit: int) -> Batch | None:
        """Lease about `limit` tickets or deliveries that are due; None where there is none.

        Raises StoreError.
        """
        store, lease = self._store(box), Lease(ttl=self.lease, grace=self.lease, limit=limit)
        now = store.clock()
        claim = store.claim(box.address, lease, now=now).claim
        if claim is None:
            return None
        batch = Batch(pool=box.pool, address=box.address, claim_id=claim.id, taken=now)
        if box.address == PENDING:
            return replace(batch, pending=list(self._read(read_pending, claim.messages)))
        return replace(batch, tickets=list(self._read(read_ticket, claim.messages)))

    def follow(self, box: Box, line: Line, *, since: float) -> float:
        """Have a line watch a box; return the seconds until something falls due in it; see `Line.follow`.

        Raises StoreError.
        """
        return line.follow(box.address, self._store(box), since=since)

    def keep(self, pool: str, pending: Sequence[tuple[PendingDelivery, int]]) -> Sequence[str]:
        """Keep deliveries in a pool, each to be due after some seconds; return their ids there.

        Raises StoreError.
        """
        if not pending:
            return []
        store = self._pools.driver(pool).messages
        messages = [pending_message(each, self._keys.seal, delay=delay) for each, delay in pending]
        return store.post(PENDING, messages, now=store.clock(), create=True, tickets=None).ids

    def settle(self, batch: Batch, ids: Collection[str]) -> None:
        """Be done with tickets or deliveries of a batch.

        Raises StoreError.
        """
        if ids:
            store = self._pools.driver(batch.pool).messages
            store.delete_many(batch.address, ids, now=store.clock())

    def forget(self, pool: str, ids: Collection[str]) -> None:
        """Be done with deliveries that were kept in a pool.

        Raises StoreError.
        """
        if ids:
            store = self._pools.driver(pool).messages
            store.delete_many(PENDING, ids, now=store.clock())

    def give_back(self, batch: Batch) -> None:
        """Let somebody else have what is left of a batch.

        Raises StoreError.
        """
        store = self._pools.driver(batch.pool).messages
        store.release(batch.address, batch.claim_id, now=store.clock())

    def send(self, pending: PendingDelivery, *, key: str, window: int) -> None:
        """Have something delivered that no message was posted for, once in `window` seconds for each key.

        Raises StoreError.
        """
        store, once = self._default, Once(key=key, fingerprint=b"", window=window)
        message = pending_message(pending, self._keys.seal)
        store.post(PENDING, [message], now=store.clock(), once=once, create=True, tickets=None)

    def bury(self, pending: PendingDelivery) -> None:
        """Give a delivery up; done twice, it is there once, unless it was sent again in between.

        Raises StoreError.
        """
        store = self._default
        key = f"{pending.notice.id}:{pending.replayed}"
        once = Once(key=key, fingerprint=b"", window=_WINDOW)
        message = pending_message(pending, self._keys.seal, ttl=self._dead_letter_ttl)
        address = _dead(pending.address, pending.subscription_id)
        store.post(address, [message], now=store.clock(), once=once, create=True, tickets=None)

    def dead(
        self,
        address: Address,
        subscription_id: str,
        *,
        marker: str | None = None,
        limit: int | None = None,
    ) -> Sequence[tuple[PendingDelivery, int]]:
        """Return a page of what was given up, oldest first, each with when that was (ms).

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(limit, self._limits.max_messages_per_page)
        return [
            (pending, message.created)
            for message in self._dead_page(address, subscription_id, marker, limit)
            for pending in self._read(read_pending, [message])
        ]

    def replay(
        self,
        address: Address,
        subscription_id: str,
        *,
        ids: Collection[str] | None = None,
        since: int | None = None,
    ) -> int:
        """Have what was given up delivered anew: some of it by id, or all since a time (ms); return how many.

        Raises Invalid unless one of the two is given.
        """
        if (ids is None) == (since is None):
            raise Invalid("Either ids or since says what to send again.")
        store, where, count, marker = self._default, _dead(address, subscription_id), 0, None
        while page := self._dead_page(address, subscription_id, marker, _PAGE):
            marker = page[-1].id
            for message in page:
                if (message.id in ids) if ids is not None else message.created >= (since or 0):
                    for pending in self._read(read_pending, [message]):
                        anew = replace(pending, attempt=1, replayed=store.clock(), begun=0)
                        again = pending_message(anew, self._keys.seal)
                        once = Once(key=f"replay:{message.id}", fingerprint=b"", window=_WINDOW)
                        store.post(PENDING, [again], now=store.clock(), once=once, create=True, tickets=None)
                        count += 1
                    store.delete_many(where, [message.id], now=store.clock())
        return count

    def note(self, address: Address, subscription_id: str, news: DeliveryCounts) -> None:
        """Add to what is known of a subscription's deliveries.

        Raises StoreError.
        """
        scope = subscriptions_scope(address)
        for _ in range(_ATTEMPTS):
            record = self._records.fetch(_COUNTS, scope, subscription_id)
            before = DeliveryCounts() if record is None else _counts(record)
            after = DeliveryCounts(
                delivered=before.delivered + news.delivered,
                failed=before.failed + news.failed,
                dead=before.dead + news.dead,
                filtered=before.filtered + news.filtered,
                last_error=news.last_error or before.last_error,
                attempts=[*news.attempts, *before.attempts][:_HISTORY],
            )
            new = Record(kind=_COUNTS, scope=scope, name=subscription_id, data=asdict(after))
            if record is None:
                if self._records.insert(new):
                    return
            elif self._records.replace(replace(new, revision=record.revision)):
                return

    def counts(self, address: Address, subscription_id: str) -> DeliveryCounts:
        """Return what is known of a subscription's deliveries."""
        record = self._records.fetch(_COUNTS, subscriptions_scope(address), subscription_id)
        return DeliveryCounts() if record is None else _counts(record)

    def drop(self, address: Address, subscription_id: str) -> None:
        """Forget what is known of a subscription that is gone."""
        self._records.remove(_COUNTS, subscriptions_scope(address), subscription_id)
        self._default.drop(_dead(address, subscription_id))

    def _store(self, box: Box) -> MessageStore:
        return self._pools.driver(box.pool).messages

    @property
    def _default(self) -> MessageStore:
        return self._pools.driver("").messages

    def _dead_page(
        self, address: Address, subscription_id: str, marker: str | None, limit: int
    ) -> Sequence[Message]:
        store, selection = self._default, Selection(marker=marker, limit=limit)
        return store.list(_dead(address, subscription_id), selection, now=store.clock())

    def _read(
        self, read: Callable[[Message, Callable[[str, bytes], bytes]], T], messages: Sequence[Message]
    ) -> Iterator[T]:
        """Read messages; what cannot be read, for want of a key perhaps, is left for somebody who can."""
        for message in messages:
            try:
                yield read(message, self._keys.open)
            except (Unsealable, msgspec.DecodeError):
                continue


def _dead(address: Address, subscription_id: str) -> Address:
    return replace(address, queue=f"{address.queue}>failed>{subscription_id}")


def _counts(record: Record) -> DeliveryCounts:
    attempts = [Attempt(**attempt) for attempt in record.data["attempts"]]
    return DeliveryCounts(**{**record.data, "attempts": attempts})
