"""Operations on queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from queues.errors import Invalid, InvalidName, InvalidTopicName, QueueNotFound
from queues.limits import check_address
from queues.models import Address, Caller, JsonObject, Queue, Stats
from queues.service.queues import Listing, QueueService
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
    exists: bool  # whether there is such a queue


@dataclass(frozen=True, slots=True)
class Family:
    """Queues or topics: the same operations on another service."""

    service: Callable[[Service], QueueService]
    refusal: type[InvalidName]  # of a name that breaks the rules


QUEUES = Family(attrgetter("queues"), InvalidName)
TOPICS = Family(attrgetter("topics"), InvalidTopicName)


def address_of(caller: Caller, queue_name: str, of: Family = QUEUES) -> Address:
    """Return where a caller's queue is.

    Raises InvalidName.
    """
    address = Address(project=caller.project, queue=queue_name)
    check_address(address, refusal=of.refusal)
    return address


def queue_list(service: Service, caller: Caller, args: QueueList, *, of: Family = QUEUES) -> QueuePage:
    """List the project's queues by name."""
    listing = Listing(marker=args.marker or "", limit=args.limit, name=args.name or "", metadata=args.filters)
    queues = of.service(service).list(caller.project, listing)
    return QueuePage(
        queues=queues, count=of.service(service).count(caller.project) if args.with_count else None
    )


def queue_create(service: Service, caller: Caller, args: QueueCreate, *, of: Family = QUEUES) -> bool:
    """Declare a queue; tell whether it is new."""
    return of.service(service).create(address_of(caller, args.queue_name, of), args.metadata or {})


def queue_get(service: Service, caller: Caller, args: QueueRef, *, of: Family = QUEUES) -> JsonObject:
    """Return a queue's metadata as stored; those of a missing one are empty."""
    found = of.service(service).find(address_of(caller, args.queue_name, of))
    return {} if found is None else found.metadata


def queue_exists(service: Service, caller: Caller, args: QueueRef, *, of: Family = QUEUES) -> None:
    """Return if there is such a queue."""
    if of.service(service).find(address_of(caller, args.queue_name, of)) is None:
        raise QueueNotFound


def queue_update(service: Service, caller: Caller, args: QueueUpdate, *, of: Family = QUEUES) -> JsonObject:
    """Patch a queue's metadata; return the result as stored."""
    return of.service(service).update(address_of(caller, args.queue_name, of), args.changes)


def queue_delete(service: Service, caller: Caller, args: QueueRef, *, of: Family = QUEUES) -> None:
    """Remove a queue with its messages and claims."""
    of.service(service).delete(address_of(caller, args.queue_name, of))


def queue_get_stats(service: Service, caller: Caller, args: QueueRef, *, of: Family = QUEUES) -> SeenStats:
    """Count a queue's messages."""
    address = address_of(caller, args.queue_name, of)
    stats, now = of.service(service).stats(address)
    exists = stats.total > 0 or of.service(service).find(address) is not None
    return SeenStats(stats=stats, now=now, exists=exists)


def queue_purge(service: Service, caller: Caller, args: QueuePurge, *, of: Family = QUEUES) -> None:
    """Remove everything from a queue."""
    address = address_of(caller, args.queue_name, of)
    if not _PURGEABLE.issuperset(args.resource_types):
        raise Invalid("The resource_types to purge are messages and subscriptions.")
    if "messages" in args.resource_types:
        of.service(service).purge(address)
    if "subscriptions" in args.resource_types and of is QUEUES:
        service.subscriptions.purge(address)


def queue_share(service: Service, caller: Caller, args: QueueShare) -> SignedUrl:
    """Sign a URL that lets others into a part of a queue for a while."""
    address = address_of(caller, args.queue_name)
    now = datetime.fromtimestamp(service.clock() / 1000, UTC)
    return service.signer.share(address.project, address.queue, args.wish, now=now)


def _shared(noun: str, of: Family) -> tuple[Operation[Any, Any], ...]:
    """Return the operations that queues and topics have in common."""
    return tuple(
        Operation(name=f"{noun}_{verb}", rule=f"{noun}s:{rule}", arguments=arguments, run=partial(run, of=of))
        for verb, rule, arguments, run in (
            ("list", "get_all", QueueList, queue_list),
            ("create", "create", QueueCreate, queue_create),
            ("get", "get", QueueRef, queue_get),
            ("exists", "get", QueueRef, queue_exists),
            ("update", "update", QueueUpdate, queue_update),
            ("delete", "delete", QueueRef, queue_delete),
            ("get_stats", "stats", QueueRef, queue_get_stats),
            ("purge", "purge", QueuePurge, queue_purge),
        )
    )


OPERATIONS = (
    *_shared("queue", QUEUES),
    Operation(name="queue_share", rule="queues:share", arguments=QueueShare, run=queue_share),
    *_shared("topic", TOPICS),
)
