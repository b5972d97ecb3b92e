"""P13: processes of the release before and of this tree serve one store side by side, and are exchanged one by one.

Producers and consumers go on meanwhile. A request may be cut off by the end of a process; none is refused, nothing is lost,
and with an idempotency key nothing is stored twice. A subscriber is told of everything, by notifiers of both.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeHermod, hermod, shared_store  # noqa: F401 - fixtures
from tests.acceptance.processes import GONE, Client, Hermod, wait_until
from tests.releases import previous

PRODUCERS, CONSUMERS = 2, 2
PAUSE = 0.03  # seconds that a client leaves the machine to others
ENOUGH = 15  # messages that are stored, and deleted, between two exchanges


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the release before."""
    return previous.unpack(tmp_path_factory.mktemp("release"))


@dataclass
class Ledger:
    """What the clients of the service know."""

    ports: list[int]  # of the processes that are there
    stored: set[str] = field(default_factory=set)
    deleted: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)  # what the subscriber has got
    cut_off: int = 0
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def flows(self) -> None:
        """Return when some more messages were stored, and deleted."""
        stored, deleted = len(self.stored) + ENOUGH, len(self.deleted) + ENOUGH
        wait_until(lambda: len(self.stored) >= stored and len(self.deleted) >= deleted, "the load flows")

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
            self.cut_off += 1


def produce(ledger: Ledger, producer: int) -> None:
    number = 0
    while not ledger.over:
        queue = "told" if number % 4 == 0 else "work"
        bodies = [f"{queue}-{producer}-{number}-{index}" for index in range(1 + number % 3)]
        document = {"messages": [{"body": body} for body in bodies]}
        ledger.ask(number, "POST", f"/v2/queues/{queue}/messages", document, key=f"{producer}-{number}")
        with ledger.lock:
            ledger.stored.update(bodies)
        number += 1
        time.sleep(PAUSE)


def consume(ledger: Ledger, consumer: int) -> None:
    number = consumer
    while not ledger.over:
        time.sleep(PAUSE)
        number += 1
        queue = ("work", "told")[number % 2]
        _, claimed = ledger.ask(number, "POST", f"/v2/queues/{queue}/claims", {"ttl": 60, "grace": 60})
        for body, _, path in (each.partition(" ") for each in claimed):
            ledger.ask(number, "DELETE", path)
            with ledger.lock:
                ledger.deleted[body] += 1


@contextmanager
def load(ledger: Ledger) -> Iterator[None]:
    """Let clients work during the block."""
    with ThreadPoolExecutor(PRODUCERS + CONSUMERS) as threads:
        work = [threads.submit(produce, ledger, number) for number in range(PRODUCERS)]
        work += [threads.submit(consume, ledger, number) for number in range(CONSUMERS)]
        try:
            yield
        finally:
            ledger.over = True
    for each in work:
        each.result()


@contextmanager
def subscriber(ledger: Ledger) -> Iterator[str]:
    """Listen for webhooks, and yield where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
            with ledger.lock:
                ledger.told[body] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Fleet:
    """Two REST processes and a notifier, each of one release or the other."""

    make: MakeHermod
    store: str
    old: dict[str, str]  # the environment of the release before
    ledger: Ledger
    apis: list[Hermod] = field(default_factory=list)
    notifier: Hermod | None = None

    def start(self) -> None:
        """Start one service of each, and a notifier of the old release."""
        self.apis = [self._api(old=True), self._api(old=False)]
        for api in self.apis:
            api.launch()
        for api in self.apis:
            api.start() if api.process is None else self._wait(api)
        self.exchange_notifier(old=True)
        self.ledger.ports[:] = [api.port for api in self.apis]

    def exchange(self, place: int, *, old: bool) -> None:
        """End one process, and start another one, of this tree or the old release."""
        going = self.apis[place]
        with self.ledger.lock:
            self.ledger.ports.remove(going.port)
        assert going.stop() == 0, going.log
        assert '"level": "error"' not in going.log
        self.apis[place] = coming = self._api(old=old).start()
        with self.ledger.lock:
            self.ledger.ports.append(coming.port)

    def exchange_notifier(self, *, old: bool) -> None:
        """Exchange the notifier, once it has told somebody something."""
        if self.notifier is not None:
            told = len(self.ledger.told)
            wait_until(lambda: len(self.ledger.told) > told, "the notifier tells the subscriber")
            assert self.notifier.stop() == 0, self.notifier.log
        self.notifier = self.make("notifier", store=self.store, **self._environ(old=old))
        self.notifier.launch()

    def _api(self, *, old: bool) -> Hermod:
        return self.make("api", "--workers", "1", store=self.store, **self._environ(old=old))

    def _environ(self, *, old: bool) -> dict[str, str]:
        return {"HERMOD_EGRESS_ALLOW": "127.0.0.0/8", **(self.old if old else {})}

    def _wait(self, api: Hermod) -> None:
        def answers() -> bool:
            with contextlib.suppress(*GONE), api.client() as client:
                return client.request("GET", "/v2/ping").status == 204
            return False

        wait_until(answers, "the service answers")


def test_the_release_before_is_what_runs(release: Path, tmp_path: Path) -> None:
    """And not this tree under another name."""
    packages = ", ".join(previous.PACKAGES)
    program = f"import {packages}; print(*(package.__file__ for package in ({packages})))"
    environ = {**os.environ, "PYTHONPATH": str(release)}
    found = subprocess.check_output([sys.executable, "-c", program], env=environ, cwd=tmp_path, text=True)
    assert found.split() == [str(release / package / "__init__.py") for package in previous.PACKAGES]


def test_the_wheel_has_what_the_tag_has(tmp_path: Path, release: Path) -> None:
    previous.from_wheel(previous.newest(), tmp_path)

    def sources(folder: Path) -> dict[str, bytes]:
        found = (path for package in previous.PACKAGES for path in (folder / package).rglob("*"))
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in found
            if path.is_file() and path.suffix != ".pyc"
        }

    assert sources(tmp_path) == sources(release)


def test_releases_are_exchanged_one_process_at_a_time_under_load(
    hermod: MakeHermod,  # noqa: F811 - the fixture
    shared_store: str,  # noqa: F811 - the fixture
    release: Path,
) -> None:
    ledger = Ledger([])
    fleet = Fleet(hermod, shared_store, {"PYTHONPATH": str(release)}, ledger)
    with subscriber(ledger) as url:
        fleet.start()
        ledger.ask(0, "POST", "/v2/queues/told/subscriptions", {"subscriber": url})
        with load(ledger):
            ledger.flows()
            fleet.exchange_notifier(old=False)
            fleet.exchange(0, old=False)  # the end of an upgrade
            ledger.flows()
            fleet.exchange_notifier(old=True)
            fleet.exchange(1, old=True)  # and back
            ledger.flows()
        left = []
        with fleet.apis[1].client() as client:
            for queue in ("work", "told"):
                found = [message["body"] for message in client.everything(queue)]
                stats = client.request("GET", f"/v2/queues/{queue}/stats").document()["messages"]
                assert stats["total"] == len(found)
                left += found
        wait_until(
            lambda: {body for body in ledger.stored if body.startswith("told")} <= set(ledger.told),
            "the subscriber is told of everything",
        )
    there = Counter(left)
    assert max(there.values(), default=1) == 1, "a message was stored twice"
    assert not there.keys() & ledger.deleted.keys(), "an acknowledged message is there again"
    assert there.keys() | ledger.deleted.keys() == ledger.stored
