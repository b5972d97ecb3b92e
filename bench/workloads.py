"""What a connection does over and over.

An operation is a generator: it yields the bytes of a request, is sent the answer, and
returns how many messages it moved. So one thread can be in the middle of many of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench import rest
from bench.bodies import NO_TIME, PRODUCER
from bench.conditions import BODY_SIZE
from bench.connection import Answer, Unexpected

Steps: TypeAlias = Generator[bytes, Answer, int]
Operation: TypeAlias = Callable[[], Steps]


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A workload with its numbers."""

    name: str  # one of `WORKLOADS`
    size: int = BODY_SIZE  # bytes of a body
    batch: int = 10  # messages of a request, where it is not one
    queue: str = rest.QUEUE


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """What some of the connections do."""

    name: str
    operation: Operation


def post(target: rest.Target, load: Load, count: int) -> Role:
    """Post messages."""
    wire = rest.post(count, load.size, queue=load.queue).wire(target)

    def once() -> Steps:
        _expect(201, (yield wire))
        return count

    return Role(name="post", operation=once)


def post_timed(target: rest.Target, load: Load) -> Role:
    """Post messages that say when they were sent, in their member `t`, for `bench.arrivals`."""
    wire = rest.post(load.batch, load.size, queue=load.queue).wire(target)

    def once() -> Steps:
        _expect(201, (yield wire.replace(NO_TIME, b"%.6f" % time.time())))
        return load.batch

    return Role(name="post", operation=once)


def claim_delete(target: rest.Target, load: Load) -> Role:
    """Claim messages and delete them; nothing is deleted where nothing is left."""
    wire = rest.claim(load.batch, queue=load.queue).wire(target)
    # Everything of a deletion but the ids, which take the place of one.
    before, after = rest.delete([PRODUCER], queue=load.queue).wire(target).split(PRODUCER.encode(), 1)

    def once() -> Steps:
        answer = yield wire
        if answer.status == 204:
            return 0
        ids = rest.found(_expect(201, answer))
        _expect(204, (yield before + ",".join(ids).encode() + after))
        return len(ids)

    return Role(name="claim + delete", operation=once)


def list_page(target: rest.Target, load: Load) -> Role:
    """List the first page."""
    wire = rest.list_page(load.batch, queue=load.queue).wire(target)

    def once() -> Steps:
        return len(rest.found(_expect(200, (yield wire))))

    return Role(name="list", operation=once)


#: The roles of a workload, which the connections take in turn.
WORKLOADS: Mapping[str, Callable[[rest.Target, Load], Sequence[Role]]] = {
    "post": lambda target, load: [post(target, load, 1)],
    "post-batch": lambda target, load: [post(target, load, load.batch)],
    "claim-delete": lambda target, load: [claim_delete(target, load)],
    "mixed": lambda target, load: [post(target, load, load.batch), claim_delete(target, load)],
    "post-timed": lambda target, load: [post_timed(target, load)],
    "list": lambda target, load: [list_page(target, load)],
}


def _expect(status: int, answer: Answer) -> bytes:
    if answer.status != status:
        raise Unexpected(f"answered {answer.status} in place of {status}")
    return answer.body
