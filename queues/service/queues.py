"""Queues: what their owners declare, and how full they are."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import TypeAlias

from queues.errors import (
    ConcurrentChange,
    FanOutChanged,
    FlavorNotFound,
    Invalid,
    InvalidChange,
    NoPool,
    QueueNotFound,
    QuotaExceeded,
)
from queues.limits import Limits, page_limit
from queues.metadata import apply_changes, parse_changes, validate, with_defaults
from queues.models import Address, Json, JsonObject, NewMessage, Once, Posted, Queue, Record, Stats
from queues.retries import parse as parse_retry_policy
from queues.service.catalogue import Catalogue, Place, queue_of
from queues.service.flavors import FlavorService
from queues.service.pools import PoolService

_SCAN = 500  # records read at once while filtering
#: Makes the tickets of a post.
Announce: TypeAlias = Callable[[], Sequence[NewMessage]]

_ATTEMPTS = 10  # to change a record that others keep changing


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Which queues of a project to show."""

    marker: str = ""  # name after which to begin
    limit: int | None = None  # at most so many; None for the default
    name: str = ""  # only names that contain this
    metadata: Mapping[str, str] | None = None  # only queues whose stored metadata have these values


class QueueService:
    """Declares, describes, lists and removes queues, or topics, as the kind of the catalogue has it.

    `quota` is how many a project may have, 0 for any number. Those who declare one at the same time may
    have one more each.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        pools: PoolService,
        flavors: FlavorService,
        limits: Limits,
        *,
        can_encrypt: bool,
        quota: int = 0,
    ) -> None:
        self._catalogue = catalogue
        self._pools = pools
        self._flavors = flavors
        self._limits = limits
        self._can_encrypt = can_encrypt
        self._quota = quota
        self._subscribed = _Subscribed()

    def create(self, address: Address, metadata: JsonObject) -> bool:
        """Declare a queue; false, and nothing changed, if it exists.

        Raises Invalid for reserved attributes that break the rules and for a flavor
        that the project has not, or whose pools take no queue; NoPool; QuotaExceeded.
        """
        self._check(metadata)
        if self._catalogue.find(address) is not None:
            return False
        self._check_quota(address.project)
        flavor = self._flavor(metadata)
        if flavor is not None:
            try:
                self._flavors.check(address.project, flavor)
                self._pools.choose(flavor)
            except (FlavorNotFound, NoPool) as error:
                raise Invalid(f"The attribute _flavor is not acceptable: {error}") from error
        return self._declare(Queue(address=address, metadata=metadata), lambda: self._pools.choose(flavor))

    def ensure(self, address: Address, *, beside: str = "", bounded: bool = True) -> Queue:
        """Declare a queue without metadata unless it exists; return it.

        It goes to the pool `beside` if that takes queues. Raises QuotaExceeded, if the quota is to bound it.
        """
        while True:
            queue = self._catalogue.find(address)
            if queue is not None:
                return queue
            if bounded:
                self._check_quota(address.project)
            self._declare(Queue(address=address, metadata={}), partial(self._choose, beside))

    def append(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        once: Once | None = None,
        beside: str = "",
        announce: Announce | None = None,
    ) -> Posted:
        """Store messages, and declare the queue if it is new: in the pool `beside` if that takes queues.

        `announce` makes the tickets by which subscribers, if there are any, will be told; what nobody
        is told of is the service's own business, to which no quota applies.

        Raises KeyReused, QuotaExceeded.
        """

        def post(place: Place, *, create: bool, subscribed: bool) -> tuple[str, Posted]:
            tickets = None if announce is None else announce() if subscribed else ()
            posted = place.store.post(
                address, messages, now=place.now, once=once, create=create, tickets=tickets
            )
            return place.pool, posted

        if self._catalogue.known(address).exists:
            with suppress(
                QueueNotFound
            ):  # nothing was posted since it was declared, or it was deleted just now
                return self._fan_out(address, partial(post, create=False))[1]
        while True:
            self.ensure(address, beside=beside, bounded=announce is not None)
            # Subscriptions outlive their queue.
            self._subscribed.put(address, announce is not None and self._catalogue.subscribed(address))
            pool, posted = self._fan_out(address, partial(post, create=True))
            # Somebody may have deleted it in between, and it may be elsewhere now.
            if self.ensure(address, beside=pool, bounded=False).pool == pool:
                return posted

    def _fan_out(self, address: Address, post: Callable[..., tuple[str, Posted]]) -> tuple[str, Posted]:
        """Post at the queue's place, with tickets if it has subscribers, which the store knows for certain."""
        for _ in range(_ATTEMPTS):
            step = partial(post, subscribed=self._subscribed.get(address))
            try:
                return self._catalogue.at(address, step)
            except FanOutChanged as change:
                self._subscribed.put(address, change.subscribed)
        raise ConcurrentChange

    def find(self, address: Address) -> Queue | None:
        """Return a queue as declared, or None."""
        return self._catalogue.find(address)

    def complete(self, metadata: JsonObject) -> JsonObject:
        """Fill in the reserved defaults."""
        return with_defaults(metadata, self._limits, attributes=self._catalogue.kind.attributes)

    def update(self, address: Address, changes: Json) -> JsonObject:
        """Apply a JSON patch to the metadata, all or nothing; return the result.

        A queue that asks for another flavor is moved to one of its pools, in a while.

        Raises InvalidChange for a malformed patch or a result that breaks the
        rules, QueueNotFound, FlavorNotFound, MissingKey, ConcurrentChange.
        """
        try:
            parsed = parse_changes(changes)
        except Invalid as error:
            raise InvalidChange(str(error)) from error
        for _ in range(_ATTEMPTS):
            queue = self.find(address)
            if queue is None:
                raise QueueNotFound
            metadata = apply_changes(queue.metadata, parsed)
            try:
                self._check(metadata)
                self._check_size(metadata)
            except Invalid as error:
                raise InvalidChange(str(error)) from error
            asks = self._placed and any(change.key == "_flavor" for change in parsed)
            if asks and (flavor := self._flavor(metadata)) is not None:
                self._flavors.check(address.project, flavor)
            if self._catalogue.replace(replace(queue, metadata=metadata)):
                if asks:
                    self._catalogue.ask_to_move(address)
                return metadata
        raise ConcurrentChange

    def delete(self, address: Address) -> None:
        """Remove a queue with its messages and claims, if it exists."""
        while True:
            queue = self._catalogue.find(address)
            if queue is None:
                self._drop_leftovers(address)
                return
            resident = self._catalogue.resident(queue.pool, address)
            if self._catalogue.remove(queue):
                break
        for pool in {queue.pool, *self._crossings(address)}:
            self._drop(address, pool)
        self._catalogue.leave(resident)

    def list(self, project: str, listing: Listing) -> Sequence[Queue]:
        """Return a page of the project's queues by name.

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(listing.limit, self._limits.max_queues_per_page)
        found: list[Queue] = []
        for queue in self._scan(project, listing, limit):
            found.append(queue)
            if len(found) == limit:
                break
        return found

    def count(self, project: str) -> int:
        """Count the project's queues."""
        return self._catalogue.records.count(self._catalogue.kind.record, project)

    def stats(self, address: Address) -> tuple[Stats, int]:
        """Count a queue's messages; return that and the time (ms) it was at."""
        stored = self._catalogue.stored(address)
        return self._catalogue.at(
            address, lambda place: (place.store.stats(stored, now=place.now), place.now)
        )

    def purge(self, address: Address) -> None:
        """Remove all messages and claims; the queue and its metadata stay."""
        stored = self._catalogue.stored(address)
        self._catalogue.at(address, lambda place: place.store.purge(stored, now=place.now))

    def _check_quota(self, project: str) -> None:
        if self._quota and self.count(project) >= self._quota:
            raise QuotaExceeded(f"The project may have {self._quota} {self._catalogue.kind.record}s.")

    def _declare(self, queue: Queue, choose: Callable[[], str]) -> bool:
        """Store a new queue's record; false if there is one of its name."""
        if not self._catalogue.kind.placed:
            return self._catalogue.insert(queue)
        while True:
            pool = choose()
            resident = self._catalogue.enter(pool, queue.address)
            # Who removes a pool looks for residents once nobody can choose it any more.
            if not self._pools.accepts(pool):
                continue
            if self._catalogue.insert(replace(queue, pool=pool)):
                self._remind(queue.address)
                return True
            faster = self._catalogue.find(queue.address)
            if faster is not None and faster.pool != pool:
                self._catalogue.leave(resident)
            return False

    def _remind(self, address: Address) -> None:
        """Let the store of a new queue know of its subscribers, who may have outlived an earlier one."""
        if self._catalogue.subscribed(address):
            self._catalogue.at(address, lambda place: place.store.subscribe(address, secrets.token_hex(8)))

    def _drop(self, address: Address, pool: str) -> None:
        self._pools.driver(pool).messages.drop(self._catalogue.stored(address))

    def _drop_leftovers(self, address: Address) -> None:
        """Drop what a deletion that failed may have left: it left the residents' notes, too."""
        crossings = self._crossings(address)
        for pool in self._pools.names() if self._placed else [""]:
            if not pool or pool in crossings or self._catalogue.resident(pool, address) is not None:
                self._drop(address, pool)

    def _crossings(self, address: Address) -> Collection[str]:
        return self._catalogue.crossings(address) if self._placed else ()

    def _choose(self, beside: str) -> str:
        return beside if beside and self._pools.accepts(beside) else self._pools.choose()

    @property
    def _placed(self) -> bool:
        return self._pools.enabled and self._catalogue.kind.placed

    def _flavor(self, metadata: JsonObject) -> str | None:
        """Return the flavor that metadata ask for, where there are any."""
        return (metadata.get("_flavor") or None) if self._placed else None

    def _check(self, metadata: JsonObject) -> None:
        validate(metadata, self._limits)
        parse_retry_policy(metadata.get("_retry_policy"))
        if metadata.get("_enable_encrypt_messages") and not self._can_encrypt:
            raise Invalid("The attribute _enable_encrypt_messages needs a service with an encryption key.")

    def _check_size(self, metadata: JsonObject) -> None:
        # What is created is bounded as a request; changes could add up to more.
        size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
        if size > self._limits.max_queue_metadata:
            raise Invalid(f"The metadata must have at most {self._limits.max_queue_metadata} bytes.")

    def _scan(self, project: str, listing: Listing, limit: int) -> Iterator[Queue]:
        size = _SCAN if listing.name or listing.metadata else limit
        after = listing.marker
        while True:
            records = self._catalogue.records.scan(
                self._catalogue.kind.record, project, after=after, limit=size
            )
            for record in records:
                if _matches(record, listing):
                    yield queue_of(record)
            if len(records) < size:
                return
            after = records[-1].name


class _Subscribed:
    """Remembers which queues had subscribers; a store that knows better says so."""

    _SIZE = 10_000

    def __init__(self) -> None:
        self._queues: OrderedDict[Address, None] = OrderedDict()
        self._lock = Lock()

    def get(self, address: Address) -> bool:
        return address in self._queues

    def put(self, address: Address, subscribed: bool) -> None:
        with self._lock:
            self._queues.pop(address, None)
            if subscribed:
                self._queues[address] = None
                if len(self._queues) > self._SIZE:
                    self._queues.popitem(last=False)


def _matches(record: Record, listing: Listing) -> bool:
    stored = record.data["metadata"]
    return listing.name in record.name and all(
        key in stored and _equals(stored[key], text) for key, text in (listing.metadata or {}).items()
    )


def _equals(stored: Json, text: str) -> bool:
    """Compare a stored value with a query value, which means a number where it looks like one."""
    if isinstance(stored, bool):
        return False
    if isinstance(stored, int):
        return text.lstrip("-").isdecimal() and text == str(stored)
    return isinstance(stored, str) and stored == text
