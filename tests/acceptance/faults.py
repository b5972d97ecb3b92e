"""A load that goes on through faults, what it knows of each message, and a way to a server that can be cut.

Producers and consumers write down what was answered to them. What was not is unknown:
it may have been done or not, and an idempotent request is sent again until it is
answered. At the end the queue must agree with what they know.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

PRODUCERS = 3  # the first repeats, with a key, a post that was not answered
CONSUMERS = 3
PATIENCE = 40.0  # seconds until a load that does not flow is given up
PAUSE = 0.005  # seconds that a worker leaves the machine to others after each request


class Refused(Exception):
    """The request was answered with the store's being unavailable."""


@dataclass(frozen=True)
class Held:
    """A message in a claim."""

    body: str
    handle: str  # by which it is deleted


class Target(Protocol):
    """A queue as one thread sees it; every method raises Refused."""

    def post(self, bodies: Sequence[str], key: str | None) -> None:
        """Post messages, with an idempotency key if there is one."""

    def claim(self) -> Sequence[Held]:
        """Claim some messages for longer than any test lasts."""

    def delete(self, held: Held) -> None:
        """Delete a message."""

    def everything(self) -> Sequence[str]:
        """Return the bodies of all messages, claimed ones too."""


#: Makes a target for a thread.
Connect = Callable[[], AbstractContextManager[Target]]


@dataclass
class Ledger:
    """What the workers know."""

    bound: float  # seconds that a request may take
    tried: set[str] = field(default_factory=set)  # bodies
    posted: set[str] = field(default_factory=set)  # of these, those that were answered
    taken: Counter[str] = field(default_factory=Counter)  # how often each was in a claim that was answered
    doubtful: set[str] = field(default_factory=set)  # told to be deleted, and not answered
    deleted: set[str] = field(default_factory=set)  # told to be deleted, and answered
    refused: int = 0
    slowest: float = 0.0  # seconds
    failure: BaseException | None = None  # of a worker
    over: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Time a request and count it if it is refused."""
        started = time.monotonic()
        refused = 0
        try:
            yield
        except Refused:
            refused = 1
            raise
        finally:
            with self.changed:
                self.slowest = max(self.slowest, time.monotonic() - started)
                self.refused += refused
                self.changed.notify_all()

    def flows(self, count: int = 25) -> None:
        """Return when so many more messages were posted, and as many deleted."""
        posted, deleted = len(self.posted) + count, len(self.deleted) + count
        self._wait(lambda: len(self.posted) >= posted and len(self.deleted) >= deleted, "the load flows")

    def refuses(self, count: int = 2 * (PRODUCERS + CONSUMERS)) -> None:
        """Return when so many more requests were refused."""
        refused = self.refused + count
        self._wait(lambda: self.refused >= refused, "requests are refused")

    def check(self, left: Sequence[str]) -> None:
        """Compare what is known with what is left in the queue."""
        there = Counter(left)
        assert max(there.values(), default=1) == 1, "a message was stored twice"
        assert max(self.taken.values()) == 1, "a message was in two live claims"
        assert not there.keys() & self.deleted, "an acknowledged message is there again"
        assert there.keys() <= self.tried
        assert self.posted <= there.keys() | self.deleted | self.doubtful, "a message was lost"
        assert self.slowest < self.bound, "a request took too long"

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self.changed:
            done = self.changed.wait_for(lambda: self.failure or condition(), PATIENCE)
        if self.failure is not None:
            raise self.failure
        assert done, f"waited {PATIENCE} seconds in vain: {what}; {self.refused} refused"


@contextmanager
def load(connect: Connect, *, bound: float) -> Iterator[Ledger]:
    """Let producers and consumers work on a queue during the block, and compare what they know with it."""
    ledger = Ledger(bound)

    def run(work: Callable[[Target, Ledger, int], None], number: int) -> None:
        try:
            with connect() as target:
                work(target, ledger, number)
        except BaseException as error:
            with ledger.changed:
                ledger.failure = error
                ledger.changed.notify_all()

    with ThreadPoolExecutor(PRODUCERS + CONSUMERS) as threads:
        for number in range(PRODUCERS):
            threads.submit(run, _produce, number)
        for number in range(CONSUMERS):
            threads.submit(run, _consume, number)
        try:
            yield ledger
        finally:
            ledger.over = True
    if ledger.failure is not None:
        raise ledger.failure
    with connect() as target:
        ledger.check(target.everything())


def _produce(target: Target, ledger: Ledger, producer: int) -> None:
    for number in itertools.count():
        bodies = [f"{producer}/{number}/{index}" for index in range(1 + number % 3)]
        with ledger.changed:
            ledger.tried.update(bodies)
        key = f"key-{producer}-{number}" if producer == 0 else None
        while not ledger.over:
            time.sleep(PAUSE)
            with contextlib.suppress(Refused):
                with ledger.request():
                    target.post(bodies, key)
                with ledger.changed:
                    ledger.posted.update(bodies)
                break
            if key is None:
                break
        if ledger.over:
            return


def _consume(target: Target, ledger: Ledger, _consumer: int) -> None:
    while not ledger.over:
        time.sleep(PAUSE)
        claimed: Sequence[Held] = ()
        with contextlib.suppress(Refused), ledger.request():
            claimed = target.claim()
        with ledger.changed:
            ledger.taken.update(held.body for held in claimed)
        for held in claimed:
            _delete(target, ledger, held)


def _delete(target: Target, ledger: Ledger, held: Held) -> None:
    with ledger.changed:
        ledger.doubtful.add(held.body)
    while not ledger.over:
        with contextlib.suppress(Refused):
            with ledger.request():
                target.delete(held)
            with ledger.changed:
                ledger.deleted.add(held.body)
                ledger.doubtful.discard(held.body)
            return
        time.sleep(PAUSE)


class Proxy:
    """A way to a port of this machine that lets through, holds back, or does not exist."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._open.set()
        for thread in self._threads:
            thread.join(10)

    def hold(self) -> None:
        """Take connections and what they send, and pass on nothing."""
        self._open.clear()

    def forward(self) -> None:
        """Pass on everything, what was held back first."""
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._start(self._accept, self._listener)
        self._open.set()

    def refuse(self) -> None:
        """End every connection and listen no longer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *ends: socket.socket) -> None:
        thread = threading.Thread(target=work, args=ends, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._sockets |= {near, far}
                self._start(self._carry, near, far)
                self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._admit(source)
                sink.sendall(data)
        self._end(source, sink)

    def _admit(self, _source: socket.socket) -> None:
        """Wait until what came from a socket may be passed on."""
        self._open.wait()

    def _end(self, source: socket.socket, sink: socket.socket) -> None:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._forget(source, sink)

    def _forget(self, source: socket.socket, sink: socket.socket) -> None:
        """Note that one direction has ended, and close both ends with the second one."""
        with self._lock:
            last = source not in self._sockets
            self._sockets -= {source, sink}
        if last:  # the other direction has ended before
            source.close()
            sink.close()
