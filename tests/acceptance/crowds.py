"""Clients by the dozen: those that ask as fast as they can, and those that keep others waiting."""

from __future__ import annotations

import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.acceptance.processes import ANSWER, CLIENT, GONE, PROJECT, Client, Hermod

HEAD = f"Host: localhost\r\nClient-ID: {CLIENT}\r\nX-Project-ID: {PROJECT}\r\n".encode()
BODY = b'{"messages": [{"body": 1}]}'
POST = b"POST /v2/queues/%s/messages HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n"
SAMPLE = 60  # requests of which the median is taken
TIMES = 3  # as long as without neighbours may an answer take
EXTRA = 1.0  # seconds; a thread or a listener that is held up takes five or more


@dataclass(frozen=True)
class Answer:
    """What a client got, and when."""

    status: int
    retry_after: str | None
    seconds: float


@dataclass
class Crowd:
    """Clients that ask again and again, as soon as they have an answer."""

    answers: list[Answer] = field(default_factory=list)
    lost: list[BaseException] = field(default_factory=list)  # requests without an answer

    def of(self, status: int) -> list[Answer]:
        """The answers with a status."""
        return [answer for answer in self.answers if answer.status == status]


@contextmanager
def asking(service: Hermod, number: int, ask: Callable[[Client], object], **options: str) -> Iterator[Crowd]:
    """Have so many clients ask until the block is over."""
    crowd, over = Crowd(), threading.Event()

    def run() -> None:
        with service.client(**options) as client:
            while not over.is_set():
                begun = time.monotonic()
                try:
                    reply = ask(client)
                except GONE as error:
                    crowd.lost.append(error)
                    continue
                seconds = time.monotonic() - begun
                crowd.answers.append(Answer(reply.status, reply.headers.get("retry-after"), seconds))  # type: ignore[attr-defined]

    threads = [threading.Thread(target=run, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield crowd
    finally:
        over.set()
        for thread in threads:
            thread.join(ANSWER)


def latency(service: Hermod, project: str = "neighbour") -> float:
    """Return the median of the seconds that it takes to post a message and to claim one, each on a new connection now and then."""
    taken = []
    for _ in range(6):
        with service.client(project=project) as client:
            for _ in range(SAMPLE // 6):
                begun = time.monotonic()
                assert client.post("q", ["hello"]).status == 201
                (message,) = client.request("POST", "/v2/queues/q/claims?limit=1").messages()
                assert client.request("DELETE", message["href"]).status == 204
                taken.append(time.monotonic() - begun)
    return statistics.median(taken)


def is_as_fast(service: Hermod, before: float) -> bool:
    """Whether a client does not notice its neighbours; tried again once, for others use the machine as well."""
    return any(latency(service) <= TIMES * before + EXTRA for _ in range(2))


@contextmanager
def connected(
    service: Hermod, number: int, *, sent: bytes = b"", window: int = 0
) -> Iterator[Sequence[socket.socket]]:
    """Open so many connections, and send the same on each; `window` bounds what it takes before it is read."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        sockets = []
        for _ in range(number):
            made = stack.enter_context(socket.socket())
            if window:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            made.settimeout(ANSWER)
            made.connect(("127.0.0.1", service.port))
            made.sendall(sent)
            sockets.append(made)
        yield sockets


@contextmanager
def trickling(sockets: Sequence[socket.socket], data: bytes) -> Iterator[None]:
    """Send a byte on each connection again and again, until the block is over."""
    over = threading.Event()

    def run() -> None:
        for number in range(len(data)):
            for each in sockets:
                with suppress(OSError):  # the service has closed it
                    each.sendall(data[number : number + 1])
            if over.wait(0.1):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(ANSWER)


def read_answer(sock: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the next answer."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    pieces = [body]
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    left = next(int(value) for name, _, value in lines if name == b"content-length") - len(body)
    while left > 0:
        pieces.append(_some(sock))
        left -= len(pieces[-1])
    return int(head.split()[1]), b"".join(pieces)


def _some(sock: socket.socket) -> bytes:
    piece = sock.recv(1_000_000)
    assert piece, "the connection was closed"
    return piece
