"""Operations on queues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from queues.errors import Invalid, QueueNotFound
from queues.limits import check_address
from queues.models import Address, Caller, JsonObject, Queue, Stats
from queues.service.queues import Listing
from queues.signing import SignedUrl
from transport.dispatch import Operation
from transport.schemas.queues import (
    QueueCreate,
    QueueList,
    QueuePurge,
    QueueRef,
    QueueShare,
    QueueUpdate,
)
from transport.service import Service

_PURGEABLE = {"messages", "subscriptions"}


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePage:
    """A page of queues."""

    queues: Sequence[Queue]  # with metadata as stored
    count: int | None  # of the project's queues, where it was asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenStats:
    """Statistics, and the time (ms) they are of."""

    stats: Stats
    now: int


def address_of(caller: Caller, queue_name: str) -> Address:
    """Return where a caller's queue is.

    Raises InvalidName.
    """
    address = Address(project=caller.project, queue=queue_name)
    check_address(address)
    return address


def queue_list(service: Service, caller: Caller, args: QueueList) -> QueuePage:
    """List the project's queues by name."""
    listing = Listing(marker=args.marker or "", limit=args.limit, name=args.name or "", metadata=args.filters)
    queues = service.queues.list(caller.project, listing)
    return QueuePage(queues=queues, count=service.queues.count(caller.project) if args.with_count else None)


def queue_create(service: Service, caller: Caller, args: QueueCreate) -> bool:
    """Declare a queue; tell whether it is new."""
    return service.queues.create(address_of(caller, args.queue_name), args.metadata or {})


def queue_get(service: Service, caller: Caller, args: QueueRef) -> JsonObject:
    """Return a queue's metadata with the reserved defaults."""
    return service.queues.metadata(address_of(caller, args.queue_name))


def queue_exists(service: Service, caller: Caller, args: QueueRef) -> None:
    """Return if there is such a queue."""
    if service.queues.find(address_of(caller, args.queue_name)) is None:
        raise QueueNotFound


def queue_update(service: Service, caller: Caller, args: QueueUpdate) -> JsonObject:
    """Patch a queue's metadata; return the result with the reserved defaults."""
    return service.queues.update(address_of(caller, args.queue_name), args.changes)


def queue_delete(service: Service, caller: Caller, args: QueueRef) -> None:
    """Remove a queue with its messages and claims."""
    service.queues.delete(address_of(caller, args.queue_name))


def queue_get_stats(service: Service, caller: Caller, args: QueueRef) -> SeenStats:
    """Count a queue's messages."""
    stats, now = service.queues.stats(address_of(caller, args.queue_name))
    return SeenStats(stats=stats, now=now)


def queue_purge(service: Service, caller: Caller, args: QueuePurge) -> None:
    """Remove everything from a queue."""
    address = address_of(caller, args.queue_name)
    if not _PURGEABLE.issuperset(args.resource_types):
        raise Invalid("The resource_types to purge are messages and subscriptions.")
    if "messages" in args.resource_types:
        service.queues.purge(address)


def queue_share(service: Service, caller: Caller, args: QueueShare) -> SignedUrl:
    """Sign a URL that lets others into a part of a queue for a while."""
    address = address_of(caller, args.queue_name)
    now = datetime.fromtimestamp(service.clock() / 1000, UTC)
    return service.signer.share(address.project, address.queue, args.wish, now=now)


OPERATIONS = (
    Operation(name="queue_list", rule="queues:get_all", arguments=QueueList, run=queue_list),
    Operation(name="queue_create", rule="queues:create", arguments=QueueCreate, run=queue_create),
    Operation(name="queue_get", rule="queues:get", arguments=QueueRef, run=queue_get),
    Operation(name="queue_exists", rule="queues:get", arguments=QueueRef, run=queue_exists),
    Operation(name="queue_update", rule="queues:update", arguments=QueueUpdate, run=queue_update),
    Operation(name="queue_delete", rule="queues:delete", arguments=QueueRef, run=queue_delete),
    Operation(name="queue_get_stats", rule="queues:stats", arguments=QueueRef, run=queue_get_stats),
    Operation(name="queue_purge", rule="queues:purge", arguments=QueuePurge, run=queue_purge),
    Operation(name="queue_share", rule="queues:share", arguments=QueueShare, run=queue_share),
)
