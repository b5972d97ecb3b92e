"""Producers, consumers and readers that run against one store at the same time.

They live in a module of their own so that spawned processes can import them, and
they write down what they saw; `test_concurrency` judges it afterwards. Times are
those of the system-wide monotonic clock, in ns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from queues.models import Address, Lease, Message, NewMessage, Selection
from queues.ports import MessageStore
from tests.storage.pooled import connect

WORK = Address(project="p", queue="work")  # is posted, claimed, popped and deleted
LOG = Address(project="p", queue="log")  # is posted and read
DONE = Address(project="p", queue="done")  # gets a message when a producer has finished

BATCH = 3  # messages of a post
PATIENCE = 60  # seconds until a worker gives up
PAUSE = 0.01  # seconds that a worker leaves the machine to others when there is nothing for it
LONG = Lease(ttl=3600, grace=60, limit=4)


@dataclass(frozen=True)
class Load:
    """How much happens in how many processes, each with eight threads."""

    uri: str
    processes: int
    batches: int  # that each producer posts to each queue

    producers = 3
    consumers = 4  # the last one pops; the eighth thread is a reader

    @property
    def messages(self) -> int:
        """How many messages each queue gets."""
        return self.processes * self.producers * self.batches * BATCH


@dataclass(frozen=True)
class Holding:
    """A message in a claim, from when that was surely so until it was perhaps no longer."""

    message_id: str
    claim_id: str
    count: int  # of hand-outs, as the message said
    since: int
    until: int
    released: bool  # or else it was deleted


@dataclass
class Findings:
    """What the workers of one process saw."""

    posted: list[str] = field(default_factory=list)  # ids in WORK
    logged: list[str] = field(default_factory=list)  # ids in LOG
    held: list[Holding] = field(default_factory=list)
    popped: list[str] = field(default_factory=list)
    read: list[list[Message]] = field(default_factory=list)  # all of LOG, by each reader
    torn: list[str] = field(default_factory=list)  # ids at which a reader saw part of a batch


def run(load: Load, number: int) -> Findings:
    """Work as one of several processes on a store."""
    with closing(connect(load.uri)) as driver:
        return work(driver.messages, load, number)


def work(store: MessageStore, load: Load, number: int) -> Findings:
    """Let eight threads work, and return what they saw."""
    findings = Findings()
    tasks: list[Callable[[], None]] = [
        *(_producer(store, load, findings, f"{number}.{n}") for n in range(load.producers)),
        *(_consumer(store, load, findings, n) for n in range(load.consumers - 1)),
        _popper(store, load, findings),
        _reader(store, load, findings),
    ]
    with ThreadPoolExecutor(len(tasks)) as threads:
        for future in [threads.submit(task) for task in tasks]:
            future.result(timeout=2 * PATIENCE)
    return findings


def _producer(store: MessageStore, load: Load, findings: Findings, name: str) -> Callable[[], None]:
    def post(address: Address, bodies: list[str]) -> list[str]:
        batch = [
            NewMessage(body=body.encode(), ttl=3600, delay=60 * (n == 1 and address == LOG))
            for n, body in enumerate(bodies)
        ]
        return list(store.post(address, batch, now=store.clock(), create=True).ids)

    def produce() -> None:
        for number in range(load.batches):
            bodies = [f'"{name}/{number}/{index}"' for index in range(BATCH)]
            findings.posted.extend(post(WORK, bodies))
            findings.logged.extend(post(LOG, bodies))
        post(DONE, [f'"{name}"'])

    return produce


def _finished(store: MessageStore, load: Load) -> bool:
    """Tell whether everything was posted and then taken from WORK."""
    posted = store.stats(DONE, now=store.clock()).total == load.processes * load.producers
    return posted and store.stats(WORK, now=store.clock()).total == 0


def _consumer(store: MessageStore, load: Load, findings: Findings, number: int) -> Callable[[], None]:
    def consume() -> None:
        deadline, turn = time.monotonic() + PATIENCE, number
        while not _finished(store, load):
            if time.monotonic() > deadline:
                raise TimeoutError("a consumer waits for messages that do not come")
            claim = store.claim(WORK, LONG, now=store.clock()).claim
            if claim is None:
                time.sleep(PAUSE)
                continue
            since, turn = time.monotonic_ns(), turn + 1
            ids = [message.id for message in claim.messages]
            if turn % 5 == 0:
                store.renew(WORK, claim.id, LONG, now=store.clock())
            seen = store.read_claim(WORK, claim.id, now=store.clock()).messages
            until = time.monotonic_ns()
            if [message.id for message in seen] != ids:
                raise AssertionError("a claim lost messages to somebody else")
            if turn % 4 == 0:
                store.release(WORK, claim.id, now=store.clock())
            elif turn % 4 == 1:
                store.delete_many(WORK, ids, now=store.clock(), claim_ids=[claim.id])
            else:
                for id_ in ids:
                    store.delete(WORK, id_, now=store.clock(), claim_id=claim.id)
            findings.held.extend(
                Holding(message.id, claim.id, message.claim_count, since, until, turn % 4 == 0)
                for message in claim.messages
            )

    return consume


def _popper(store: MessageStore, load: Load, findings: Findings) -> Callable[[], None]:
    def consume() -> None:
        deadline = time.monotonic() + PATIENCE
        while not _finished(store, load):
            if time.monotonic() > deadline:
                raise TimeoutError("a consumer waits for messages that do not come")
            popped = store.pop(WORK, 1, now=store.clock()).messages
            findings.popped.extend(message.id for message in popped)
            if not popped:
                time.sleep(PAUSE)

    return consume


def _reader(store: MessageStore, load: Load, findings: Findings) -> Callable[[], None]:
    def read() -> None:
        deadline, seen, limit = time.monotonic() + PATIENCE, list[Message](), 20
        while len(seen) < load.messages:
            if time.monotonic() > deadline:
                raise TimeoutError(f"a reader saw {len(seen)} of {load.messages} messages")
            marker = seen[-1].id if seen else None
            selection = Selection(marker=marker, limit=limit, include_delayed=True)
            page = store.list(LOG, selection, now=store.clock())
            seen.extend(page)
            if not page:
                time.sleep(PAUSE)
            if page and len(page) < limit and not page[-1].body.endswith(b'/%d"' % (BATCH - 1)):
                findings.torn.append(page[-1].id)
        findings.read.append(seen)

    return read
