"""Client processes: connections that each send the next request as soon as the answer to the last is there.

They speak HTTP over plain sockets with requests made beforehand, since a library
for HTTP costs more than the server does.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from bench import rest


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a client process is to do."""

    host: str
    port: int
    load: str  # one of `LOADS`
    connections: int
    start: float  # seconds since the epoch
    seconds: float  # how long


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What it did."""

    latencies: list[float]  # seconds, of each load that was done in time
    cpu: float  # seconds
    errors: list[str]  # what ended a connection early


class Connection:
    """One kept-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, request: rest.Request, wire: bytes | None = None) -> bytes:
        """Send a request, or the bytes it was turned into before, and return the body of the answer."""
        self._socket.sendall(wire or request.wire())
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        head = head.lower()
        status = int(head[9:12])
        if status != request.status:
            raise ConnectionError(f"{request.method} {request.path} answered {status}: {body[:200]!r}")
        _, found, length = head.partition(b"\r\ncontent-length:")
        missing = int(length.split(b"\r\n", 1)[0]) - len(body) if found else 0
        while missing > 0:
            body += (part := self._receive())
            missing -= len(part)
        return body

    def _receive(self) -> bytes:
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part


def _posting(connection: Connection, count: int) -> Callable[[], object]:
    request = rest.post(count)
    return partial(connection.send, request, request.wire())


def _taking(connection: Connection, count: int) -> Callable[[], object]:
    claim = rest.claim(count)
    wire = claim.wire()

    def take() -> None:
        ids = rest.claimed(connection.send(claim, wire))
        if len(ids) != count:
            raise ConnectionError(f"{len(ids)} messages claimed instead of {count}")
        connection.send(rest.delete(ids))

    return take


#: What can be done; see `bench.hotpath.LOADS`.
LOADS: Mapping[str, Callable[[Connection], Callable[[], object]]] = {
    "post 1": partial(_posting, count=1),
    "post 10": partial(_posting, count=10),
    "claim 10 + delete 10": partial(_taking, count=10),
}


def work(order: Order) -> Tally:
    """Do what was ordered, in a thread for each connection."""
    latencies: list[float] = []
    errors: list[str] = []

    def run() -> None:
        try:
            connection = Connection(order.host, order.port)
            once = LOADS[order.load](connection)
            time.sleep(max(0.0, order.start - time.time()))
            before = time.perf_counter()
            end = before + order.seconds
            while before < end:
                once()
                after = time.perf_counter()
                latencies.append(after - before)
                before = after
            connection.close()
        except (OSError, ValueError) as error:
            errors.append(str(error))

    cpu = time.process_time()
    threads = [threading.Thread(target=run) for _ in range(order.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Tally(latencies=latencies, cpu=time.process_time() - cpu, errors=errors)
