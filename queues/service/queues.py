"""Queues: what their owners declare, and how full they are."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from queues.errors import ConcurrentChange, Invalid, InvalidChange, QueueNotFound
from queues.limits import DEFAULT_PAGE, Limits, check_range
from queues.metadata import (
    TOPIC_ATTRIBUTES,
    QueuePolicy,
    apply_changes,
    parse_changes,
    policy_of,
    validate,
    with_defaults,
)
from queues.models import Address, Json, JsonObject, Queue, Record, Stats
from queues.ports import RecordStore, Router

_SCAN = 500  # records read at once while filtering
_ATTEMPTS = 10  # to change a record that others keep changing


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Which queues of a project to show."""

    marker: str = ""  # name after which to begin
    limit: int | None = None  # at most so many; None for the default
    name: str = ""  # only names that contain this
    metadata: Mapping[str, str] | None = None  # only queues whose stored metadata have these values


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a post has to know of a queue, a moment old at most."""

    exists: bool  # whether it was declared
    policy: QueuePolicy  # its limits and defaults


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What there is two of: queues, and topics, which are declared and described in the same way."""

    record: str  # the kind of record that describes one
    attributes: Collection[str] | None = None  # the reserved ones that it shows; None for all
    prefix: str = ""  # of its name in the message store, out of the way of the other kind's


QUEUE = Kind(record="queue")
TOPIC = Kind(record="topic", attributes=TOPIC_ATTRIBUTES, prefix="topic:")


class QueueService:
    """Declares, describes, lists and removes queues, or topics.

    `cache_age` (seconds) is how old the limits and defaults may be that a post or
    a claim goes by; nothing else is ever answered from memory.
    """

    def __init__(
        self,
        records: RecordStore,
        router: Router,
        limits: Limits,
        *,
        can_encrypt: bool,
        kind: Kind = QUEUE,
        cache_age: float = 1.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._router = router
        self._limits = limits
        self._can_encrypt = can_encrypt
        self._kind = kind
        self._known = _RecentlyKnown(cache_age, timer)

    def create(self, address: Address, metadata: JsonObject) -> bool:
        """Declare a queue; false, and nothing changed, if it exists.

        Raises Invalid for reserved attributes that break the rules.
        """
        self._check(metadata)
        created = self._records.insert(self._record(Queue(address=address, metadata=metadata)))
        self._known.forget(address)
        return created

    def ensure(self, address: Address) -> None:
        """Declare a queue without metadata unless it exists."""
        if self.find(address) is None:
            self.create(address, {})

    def find(self, address: Address) -> Queue | None:
        """Return a queue as declared, or None."""
        record = self._records.fetch(self._kind.record, address.project, address.queue)
        return None if record is None else _queue(record)

    def metadata(self, address: Address) -> JsonObject:
        """Return the metadata with the reserved defaults; those of a missing queue are the defaults."""
        queue = self.find(address)
        return self.complete({} if queue is None else queue.metadata)

    def complete(self, metadata: JsonObject) -> JsonObject:
        """Fill in the reserved defaults."""
        return with_defaults(metadata, self._limits, attributes=self._kind.attributes)

    def known(self, address: Address) -> Known:
        """Return what a post or claim goes by, `cache_age` old at most."""
        known = self._known.get(address)
        if known is None:
            queue = self.find(address)
            metadata = {} if queue is None else queue.metadata
            policy = policy_of(address, metadata, self._limits)
            known = Known(exists=queue is not None, policy=policy)
            self._known.put(address, known)
        return known

    def update(self, address: Address, changes: Json) -> JsonObject:
        """Apply a JSON patch to the metadata, all or nothing; return the result with defaults.

        Raises InvalidChange for a malformed patch or a result that breaks the
        rules, QueueNotFound, MissingKey, ConcurrentChange.
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
            if self._records.replace(self._record(replace(queue, metadata=metadata))):
                self._known.forget(address)
                return self.complete(metadata)
        raise ConcurrentChange

    def delete(self, address: Address) -> None:
        """Remove a queue with its messages and claims, if it exists."""
        self._records.remove(self._kind.record, address.project, address.queue)
        self._router.store(address).drop(self._stored(address))
        self._known.forget(address)

    def list(self, project: str, listing: Listing) -> Sequence[Queue]:
        """Return a page of the project's queues by name.

        Raises Invalid for a limit out of range.
        """
        maximum = self._limits.max_queues_per_page
        limit = min(DEFAULT_PAGE, maximum) if listing.limit is None else listing.limit
        check_range("limit", limit, 1, maximum)
        found: list[Queue] = []
        for queue in self._scan(project, listing, limit):
            found.append(queue)
            if len(found) == limit:
                break
        return found

    def count(self, project: str) -> int:
        """Count the project's queues."""
        return self._records.count(self._kind.record, project)

    def stats(self, address: Address) -> tuple[Stats, int]:
        """Count a queue's messages; return that and the time (ms) it was at."""
        store = self._router.store(address)
        now = store.clock()
        return store.stats(self._stored(address), now=now), now

    def purge(self, address: Address) -> None:
        """Remove all messages and claims; the queue and its metadata stay."""
        store = self._router.store(address)
        store.purge(self._stored(address), now=store.clock())

    def _stored(self, address: Address) -> Address:
        """Return the address in the message store."""
        return replace(address, queue=self._kind.prefix + address.queue) if self._kind.prefix else address

    def _record(self, queue: Queue) -> Record:
        return Record(
            kind=self._kind.record,
            scope=queue.address.project,
            name=queue.address.queue,
            data={"metadata": queue.metadata},
            revision=queue.revision,
        )

    def _check(self, metadata: JsonObject) -> None:
        validate(metadata, self._limits)
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
            records = self._records.scan(self._kind.record, project, after=after, limit=size)
            for record in records:
                if _matches(record, listing):
                    yield _queue(record)
            if len(records) < size:
                return
            after = records[-1].name


class _RecentlyKnown:
    """A small memory of `Known`, each entry dropped at a certain age."""

    _SIZE = 10_000

    def __init__(self, age: float, timer: Callable[[], float]) -> None:
        self._age = age
        self._timer = timer
        self._entries: OrderedDict[Address, tuple[float, Known]] = OrderedDict()
        self._lock = Lock()

    def get(self, address: Address) -> Known | None:
        entry = self._entries.get(address)
        return entry[1] if entry and entry[0] > self._timer() else None

    def put(self, address: Address, known: Known) -> None:
        with self._lock:
            self._entries.pop(address, None)
            self._entries[address] = (self._timer() + self._age, known)
            if len(self._entries) > self._SIZE:
                self._entries.popitem(last=False)

    def forget(self, address: Address) -> None:
        with self._lock:
            self._entries.pop(address, None)


def _queue(record: Record) -> Queue:
    return Queue(
        address=Address(project=record.scope, queue=record.name),
        metadata=record.data["metadata"],
        revision=record.revision,
    )


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
