"""Dead letters: how messages that were claimed too often get to their dead-letter queue.

Where the store can change both queues in one step, a claim moves them itself.
Otherwise, in another pool or another slot of a cluster, the claim moves them to an
annex of the queue, and from there they are posted with an idempotency key each
before they are deleted: a crash in between repeats a step that does nothing twice.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event

from queues.errors import StoreError
from queues.models import Address, DeadLetter, Life, Message, NewMessage, Once, Record, Selection
from queues.ports import RecordStore
from queues.service.catalogue import Catalogue, Place
from queues.service.pools import PoolService
from queues.service.queues import QueueService

_KIND = "annex"
_PAGE = 20  # messages forwarded at once
_SCAN = 500  # notes read at once
_WINDOW = 86_400  # seconds during which a message that is forwarded again is recognised
_KEY = "\x01dead-letter:"  # no client can send such a key
_NOTED = 10_000  # annexes that are remembered to have been noted


@dataclass(frozen=True, kw_only=True, slots=True)
class Annex:
    """Where dead letters of a queue wait, in one pool, for another queue."""

    pool: str
    source: Address
    target: Address

    @property
    def address(self) -> Address:
        """What the annex is called in the store; no queue can have such a name."""
        return replace(self.source, queue=f"{self.source.queue}>{self.target.queue}")

    @property
    def note(self) -> Record:
        """The record by which others find it."""
        name = json.dumps([self.pool, self.source.project, self.source.queue, self.target.queue])
        return Record(kind=_KIND, scope="", name=name, data={})


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How dead letters of a queue get to where they belong."""

    pool: str  # that the queue lives in
    end: Address  # the dead-letter queue
    step: DeadLetter  # where a claim moves them: there, or to an annex


class DeadLetterService:
    """Gets messages to their dead-letter queues."""

    def __init__(
        self, records: RecordStore, pools: PoolService, catalogue: Catalogue, queues: QueueService
    ) -> None:
        self._records = records
        self._pools = pools
        self._catalogue = catalogue
        self._queues = queues
        self._noted: OrderedDict[Annex, None] = OrderedDict()

    def way(self, address: Address, place: Place) -> Way | None:
        """Return how messages that were claimed too often get to a queue's dead-letter queue; None without one."""
        letter = self._catalogue.known(address).policy.dead_letter
        return None if letter is None else self.way_to(letter, address, place)

    def way_to(self, letter: DeadLetter, address: Address, place: Place) -> Way:
        """Return how messages of the queue at a place get to a dead-letter queue."""
        if place.store.joins(address, letter.address):
            target = self._catalogue.known(letter.address)
            if not self._pools.enabled or (target.exists and target.pool == place.pool):
                return Way(pool=place.pool, end=letter.address, step=letter)
        annex = Annex(pool=place.pool, source=address, target=letter.address)
        if annex not in self._noted:
            self._records.insert(annex.note)
            self._noted[annex] = None
            if len(self._noted) > _NOTED:
                self._noted.popitem(last=False)
        return Way(pool=place.pool, end=letter.address, step=replace(letter, address=annex.address))

    def deliver(self, way: Way) -> None:
        """See to what a claim has moved the first step of a way."""
        stored = way.step.address
        if stored != way.end:
            with suppress(StoreError):  # it is safe in the annex, from where the janitor will take it
                self._forward(way.pool, stored, way.end)
        elif self._queues.ensure(way.end, beside=way.pool, bounded=False).pool != way.pool:
            # The queue was deleted and declared elsewhere just now.
            self._forward(way.pool, stored, way.end)

    def forward(self, annex: Annex) -> None:
        """Move everything from an annex to its dead-letter queue."""
        self._forward(annex.pool, annex.address, annex.target)

    def annexes(self) -> Iterator[Annex]:
        """Return every annex there is."""
        after = ""
        while page := self._records.scan(_KIND, "", after=after, limit=_SCAN):
            for record in page:
                pool, project, source, target = json.loads(record.name)
                yield Annex(
                    pool=pool,
                    source=Address(project=project, queue=source),
                    target=Address(project=project, queue=target),
                )
            after = page[-1].name

    def sweep(self, annex: Annex) -> None:
        """Empty an annex, and forget it if its queue is gone from the pool."""
        self.forward(annex)
        queue = self._catalogue.find(annex.source)
        if queue is None or queue.pool != annex.pool:
            self._pools.driver(annex.pool).messages.drop(annex.address)
            self._records.remove(_KIND, "", annex.note.name)

    def sweep_all(self, stop: Event) -> None:
        """Empty every annex: what a crash has left there.

        Raises StoreError, having done what could be done.
        """
        trouble: StoreError | None = None
        for annex in self.annexes():
            if stop.is_set():
                return
            try:
                self.sweep(annex)
            except StoreError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _forward(self, pool: str, source: Address, target: Address) -> None:
        store = self._pools.driver(pool).messages
        selection = Selection(limit=_PAGE, include_claimed=True, include_delayed=True)
        while True:
            now = store.clock()
            messages = store.list(source, selection, now=now)
            if not messages:
                return
            for message in messages:
                self._post(target, message, now, pool)
            store.delete_many(source, [message.id for message in messages], now=now)

    def _post(self, target: Address, message: Message, now: int, pool: str) -> None:
        once = Once(key=f"{_KEY}{message.id}", fingerprint=b"", window=_WINDOW)
        # The clocks of two stores differ; ages do not.
        there = self._catalogue.at(target, lambda place: place.now)
        new = NewMessage(
            body=message.body,
            ttl=message.ttl,
            client_id=message.client_id,
            sealed=message.sealed,
            life=Life(created=message.created + there - now, expires=message.expires + there - now),
        )
        self._queues.append(target, [new], once=once, beside=pool)
