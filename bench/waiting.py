"""The workload `idle-waiters`: what requests cost while hundreds of clients wait for messages, and while none does."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from bench import rest
from bench.connection import Connection
from bench.fleet import fleet
from bench.report import Figure
from bench.rows import Row, at
from bench.run import Findings, put
from bench.setup import Setting

DEAREST = 1.2  # times what it takes while nobody waits

_WAIT = 20  # seconds that a client waits at most, before it waits again
_SOON = 1.0  # an answer that comes sooner than that is none to a client that waits
_SETTLE = 1.0  # seconds until all clients wait


def measure(setting: Setting) -> Findings:
    """Post and claim, first alone, then while clients wait elsewhere."""
    wish = setting.wish
    rows = []
    with fleet(min(wish.processes, wish.connections[0]), wish.connections[0]) as clients:
        rows.append(Row(name="nobody waits", result=put(setting, clients, "mixed")))
        for name, queue in (("for a queue each", "{}-{}"), ("for one queue", "{}-all")):
            queues = [queue.format(setting.queue, number) for number in range(wish.waiters)]
            label = f"{wish.waiters} wait {name}"
            with _waiting(setting, queues):
                rows.append(Row(name=label, result=put(setting, clients, "mixed", label=label)))
    return Findings(rows=rows, figures=_compared(rows))


def _compared(rows: list[Row]) -> list[Figure]:
    alone, *others = rows
    return [
        Figure(
            table="The median while clients wait, against that while nobody does",
            load=f"{role}, {row.name}",
            columns={"alone, ms": before, "together, ms": after},
            ratio=after / before,
            at_most=DEAREST,
        )
        for row in others
        for role in row.result.roles
        if (before := at(alone.result.roles[role].latencies, 50.0))
        and (after := at(row.result.roles[role].latencies, 50.0))
    ]


@contextmanager
def _waiting(setting: Setting, queues: list[str]) -> Iterator[None]:
    """Let a client wait for each of the queues, all of them empty.

    Raises RuntimeError at the end if they were not made to wait.
    """
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        for queue in queues:
            connection = opened.enter_context(closing(Connection(setting.target)))
            wire = rest.claim(1, queue=queue, wait=_WAIT).wire(setting.target)
            connection.send(wire)
            selector.register(connection.fileno(), selectors.EVENT_READ, (connection, wire))
        over = threading.Event()
        trouble: list[str] = []
        thread = threading.Thread(target=_wait_on, args=(selector, over, trouble))
        thread.start()
        try:
            time.sleep(_SETTLE)
            yield
        finally:
            over.set()
            thread.join()
    if trouble:
        raise RuntimeError(trouble[0])


def _wait_on(selector: selectors.BaseSelector, over: threading.Event, trouble: list[str]) -> None:
    """Have everybody wait again who was answered."""
    start = time.monotonic()
    while (answered := selector.select(0.2)) or not over.is_set():
        for key, _ in answered:
            connection, wire = key.data
            answer = connection.receive()
            if answer is None:
                continue
            if answer.status != 204 or time.monotonic() < start + _SOON:
                trouble.append(
                    f"A client was to wait for {_WAIT} s, and was answered {answer.status} at once."
                )
                return
            connection.send(wire)
