"""Consumers that compete for one queue, and readers that follow its markers.

They live in a module of their own so that spawned processes can import them, and write
down what they saw; `test_contention` judges it afterwards. Times are those of the
system-wide monotonic clock, in ns.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from queues.models import Address, Lease, NewMessage, Selection
from queues.ports import MessageStore
from storage.registry import connect

T = TypeVar("T")

QUEUE = Address(project="p", queue="contended")
LIMIT = 5  # messages of a claim, and of a page
EMPTY = 3  # answers without a message after which a consumer believes that there is none
BATCH = 4  # messages of a post
PATIENCE = 30  # seconds until a worker gives up


@dataclass(frozen=True)
class Taken:
    """What one claim got."""

    began: int  # when it was asked for
    ended: int  # when it was answered
    claim_id: str  # "" if there was nothing
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What one reader saw."""

    ids: tuple[str, ...]  # in the order in which it saw them
    gone: int  # how many markers it went by whose message was deleted


class _Start:
    """Where processes wait for each other, once each of them is connected."""

    barrier: Any = None


def _agree(barrier: Any) -> None:
    _Start.barrier = barrier


def in_processes(*calls: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Any]:
    """Let processes begin at once; return what each returns."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(calls), _agree, [context.Barrier(len(calls))]) as pool:
        asked = [pool.apply_async(function, arguments) for function, arguments in calls]
        return [each.get(timeout=3 * PATIENCE) for each in asked]


def in_threads(uri: str, number: int, act: Callable[[MessageStore, int], T]) -> list[T]:
    """Open a store, let threads act on it at once, each with its number, and return what they return."""
    start = threading.Barrier(number)

    def begin(store: MessageStore, thread: int) -> T:
        store.stats(QUEUE, now=store.clock())  # with a connection of its own
        if start.wait(PATIENCE) == 0 and _Start.barrier is not None:
            _Start.barrier.wait(PATIENCE)
        start.wait(PATIENCE)
        return act(store, thread)

    with closing(connect(uri, timeout=30.0)) as driver, ThreadPoolExecutor(number) as threads:
        futures = [threads.submit(begin, driver.messages, n) for n in range(number)]
        return [future.result(timeout=2 * PATIENCE) for future in futures]


def consume(store: MessageStore, _number: int) -> list[Taken]:
    """Claim until there is nothing any more."""
    taken: list[Taken] = []
    lease = Lease(ttl=3600, grace=60, limit=LIMIT)
    while sum(not each.ids for each in taken) < EMPTY:
        began = time.monotonic_ns()
        claim = store.claim(QUEUE, lease, now=store.clock()).claim
        ended = time.monotonic_ns()
        ids = tuple(message.id for message in claim.messages) if claim else ()
        taken.append(Taken(began, ended, claim.id if claim else "", ids))
    return taken


def consumers(uri: str, number: int) -> list[list[Taken]]:
    """Be one of several processes with so many consumers."""
    return in_threads(uri, number, consume)


def produce(store: MessageStore, name: str, batches: int) -> list[list[str]]:
    """Post batches and return the ids of each."""
    posted = []
    for number in range(batches):
        bodies = [f'"{name}/{number}/{index}"' for index in range(BATCH)]
        batch = [NewMessage(body=body.encode(), ttl=3600) for body in bodies]
        posted.append(list(store.post(QUEUE, batch, now=store.clock(), create=True).ids))
    return posted


def follow(store: MessageStore, number: int, total: int, *, delete: bool) -> Seen:
    """Follow the markers until so many messages were seen; delete each page behind itself if told to."""
    deadline = time.monotonic() + PATIENCE
    seen: list[str] = []
    gone = 0
    while len(seen) < total:
        if time.monotonic() > deadline:
            raise TimeoutError(f"a reader saw {len(seen)} of {total} messages")
        marker = seen[-1] if seen else None
        selection = Selection(marker=marker, limit=LIMIT + number, include_claimed=True)
        page = store.list(QUEUE, selection, now=store.clock())
        gone += bool(page) and delete and marker is not None
        seen += [message.id for message in page]
        if delete and page:
            store.delete_many(QUEUE, [message.id for message in page], now=store.clock())
        if not page:
            time.sleep(0.005)  # leave the machine to the producers
    return Seen(tuple(seen), gone)


def producers(uri: str, process: int, number: int, batches: int) -> list[list[list[str]]]:
    """Be one of several processes with so many producers."""

    def act(store: MessageStore, thread: int) -> list[list[str]]:
        return produce(store, f"{process}.{thread}", batches)

    return in_threads(uri, number, act)


def readers(uri: str, number: int, total: int) -> list[Seen]:
    """Be a process whose readers follow the markers; nothing is deleted."""
    return in_threads(uri, number, lambda store, n: follow(store, n, total, delete=False))


def deleting_reader(uri: str, total: int) -> list[Seen]:
    """Be a process whose reader deletes what it has read: its marker is always one of a message that is gone."""
    return in_threads(uri, 1, lambda store, n: follow(store, n, total, delete=True))


def flat(parts: Sequence[Sequence[T]]) -> list[T]:
    """Put lists one behind the other."""
    return [each for part in parts for each in part]
