"""What the clients know that work while releases are exchanged: what was answered, and how far each has come."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.acceptance.processes import GONE, Client, wait_until

PAUSE = 0.05  # seconds that a client leaves the machine to others
ENOUGH = 15  # messages that are stored, and deleted, between two exchanges
SOME = 3  # things that each client gets done between them


@dataclass
class Ledger:
    """What the clients of the service know."""

    ports: list[int] = field(default_factory=list)  # of the REST processes that are there
    nodes: list[int] = field(default_factory=list)  # of the websocket processes
    stored: set[str] = field(default_factory=set)
    deleted: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)  # what the webhook has got
    done: Counter[str] = field(default_factory=Counter)  # what each client got done
    cut_off: int = 0
    over: bool = False
    error: BaseException | None = None  # what went wrong with a client first
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flows(self) -> None:
        """Return when some more messages were stored, and deleted, and when everybody got something done."""
        stored, deleted = len(self.stored) + ENOUGH, len(self.deleted) + ENOUGH
        done = {name: number + SOME for name, number in self.done.items()}

        def flowed() -> bool:
            self.check()
            return (
                len(self.stored) >= stored
                and len(self.deleted) >= deleted
                and all(self.done[name] >= number for name, number in done.items())
            )

        wait_until(flowed, "the load flows")

    def check(self) -> None:
        """Raise what went wrong with a client."""
        if self.error is not None:
            raise self.error

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what goes wrong in a thread."""
        try:
            yield
        except BaseException as error:
            self.error = self.error or error
            raise

    def goes_on(self) -> None:
        """Note that a request was cut off, which is to be asked again."""
        with self.lock:
            self.cut_off += 1
        assert not self.over, "a request was cut off, and no process ended"
        time.sleep(PAUSE)

    def ask(
        self, number: int, method: str, path: str, body: object = None, key: str = ""
    ) -> tuple[int, list[str]]:
        """Ask one process after the other until one answers; return the status, and ids or paths.

        What is cut off is asked again.
        """
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            number += 1
            with self.lock:
                port = self.ports[number % len(self.ports)]
            with contextlib.suppress(*GONE), Client(port) as client:
                answer = client.request(method, path, body, headers=headers)
                assert answer.status < 400, answer
                if method == "POST" and path.endswith("claims"):
                    return answer.status, [f"{each['body']} {each['href']}" for each in answer.messages()]
                return answer.status, []
            self.goes_on()

    def note_stored(self, client: str, bodies: list[str]) -> None:
        """Note that a post was answered."""
        with self.lock:
            self.stored.update(bodies)
            self.done[client] += 1

    def note_deleted(self, client: str, body: str) -> None:
        """Note that a message was acknowledged."""
        with self.lock:
            self.deleted[body] += 1
            self.done[client] += 1
