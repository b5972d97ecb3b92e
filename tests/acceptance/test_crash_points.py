"""P1, P4, P9, P10: whoever dies at whatever point, nothing that was answered is lost, nothing with a key is there twice,
statistics are right, and subscribers are told. The points are those of `queues.crashes`.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from queues import crashes
from queues.models import Address, Selection
from queues.ports import MessageStore
from storage.registry import connect
from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.crashing import DEAD, LEASE, PLAIN, TOLD, WORK
from tests.acceptance.processes import Hermod, listening, wait_until

ROOT = Path(__file__).parents[2]
KILLED = -9
LONG = 60.0  # seconds that anything may take on a very busy machine

STORES = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'store.db'}",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}

#: Points in drivers, each with how often it is passed before the process dies: at every kind of operation.
LIVES = (1, 3, 4, 6, 9)
IN_DRIVERS = [point for point in crashes.POINTS if point.partition(".")[0] in STORES]
IN_NOTIFIER = [
    "notifier.taken",
    "notifier.attempted",
    "notifier.concluded",
    "notifier.kept",
    "notifier.settled",
]


def reached(tree: ast.Module) -> Iterator[str]:
    """The points that a module names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
            (name,) = node.args
            assert isinstance(name, ast.Constant)
            assert isinstance(name.value, str)
            yield name.value


def test_every_point_is_somewhere_and_has_a_test() -> None:
    files = (
        file for package in ("storage", "notifiers", "transport") for file in (ROOT / package).rglob("*.py")
    )
    there_are = [name for file in files for name in reached(ast.parse(file.read_text(encoding="utf-8")))]

    assert sorted(there_are) == sorted(crashes.POINTS), "each point is one place"
    assert sorted([*IN_DRIVERS, *IN_NOTIFIER]) == sorted(crashes.POINTS)


def test_nothing_dies_unless_it_is_told_to() -> None:
    assert "HERMOD_TEST_CRASH_AT" not in os.environ
    for point in crashes.POINTS:
        crashes.reach(point)
    with pytest.raises(ValueError, match="no point"):
        crashes._dying("sqlite.never")


@dataclass
class Known:
    """What the processes that died had said."""

    posted: set[str] = field(default_factory=set)  # bodies that were answered
    tried: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)  # to be deleted, and not answered
    repeat: list[Any] = field(default_factory=list)  # posts that were not answered
    number: int = 0
    last: str = ""  # the operation that the last one died in

    def hear(self, line: str) -> None:
        """Take note of a line."""
        word, _, text = line.partition(" ")
        operation, queue, *about = json.loads(text)
        self.last = operation if word == "try" else ""
        if operation == "post":
            key, bodies = about
            self.number = max(self.number, int(key.rpartition("-")[2]) + 1)
            (self.tried if word == "try" else self.posted).update(bodies)
            self.repeat = [[queue, key, bodies]] if word == "try" else []
        elif operation == "delete":
            self.doubtful.update(about[0])
            if word == "ok":
                self.deleted.update(about[0])


def live(uri: str, point: str, count: int, known: Known) -> None:
    """Let a process work until it dies at a point."""
    environ = {**os.environ, "HERMOD_TEST_CRASH_AT": f"{point}:{count}"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.crashing", uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        cwd=ROOT,
        text=True,
    ) as process:
        out, _ = process.communicate(
            json.dumps({"repeat": known.repeat, "number": known.number}) + "\n", timeout=60
        )
    assert process.returncode == KILLED
    for line in out.splitlines():
        known.hear(line)


def bodies(store: MessageStore, address: Address, now: int) -> list[str]:
    found = store.list(address, Selection(limit=1000, include_claimed=True, include_delayed=True), now=now)
    stats = store.stats(address, now=now)
    assert (stats.claimed, stats.total) == (
        sum(message.claim_id is not None for message in found),
        len(found),
    )
    assert stats.free == len(found) - stats.claimed
    return [message.body.decode() for message in found]


@pytest.mark.parametrize("point", IN_DRIVERS)
def test_a_process_that_dies_at_a_point_loses_and_doubles_nothing(point: str, tmp_path: Path) -> None:
    uri, known = STORES[point.partition(".")[0]](tmp_path), Known()
    died_in = set()
    with closing(connect(uri, timeout=5)) as driver:
        store = driver.messages
        store.subscribe(TOLD, "somebody")
        for count in LIVES:
            live(uri, point, count, known)
            died_in.add(known.last)
        now = store.clock()
        there = Counter(body for queue in (PLAIN, TOLD, WORK, DEAD) for body in bodies(store, queue, now))
        tickets = [
            ticket for box in store.outboxes() for ticket in store.list(box, Selection(limit=1000), now=now)
        ]
        told = Counter(body for ticket in tickets for body in json.loads(ticket.body))
        noted = Counter(body for body in there if body.startswith("told"))
        later = now + (LEASE + 60) * 1000
        assert store.stats(PLAIN, now=later).claimed == 0
        assert there == Counter(
            body for queue in (PLAIN, TOLD, WORK, DEAD) for body in bodies(store, queue, later)
        )

    assert len(died_in - {""}) >= 2, "it died in one kind of operation only"
    assert max(there.values()) == 1, "a message is there twice"
    assert there.keys() <= known.tried
    assert not there.keys() & known.deleted, "what was deleted is there again"
    assert known.posted - known.doubtful <= there.keys(), "a message was lost"
    assert told == noted, "messages and their tickets differ"


class Receiver:
    """A subscriber that takes everything, or, on another path, refuses it for good."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
                refuses = self.path.startswith("/refuses")
                with receiver.lock:
                    (receiver.refused if refuses else receiver.taken)[body] += 1
                self.send_response(400 if refuses else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@dataclass
class Crash:
    """A notifier that dies at a point, beside a service with a store of their own."""

    point: str
    uri: str  # of the store
    api: Hermod
    dying: Hermod
    other: Hermod  # the notifier that goes on
    receiver: Receiver = field(default_factory=Receiver)

    def run(self) -> None:
        """Have it die, start another one, and see that everybody is told, or finds what was given up."""
        self.api.start()
        with listening(self.receiver.server), self.api.client() as self.client:
            refusing = self._subscribe("refuses")
            self._subscribe("takes")
            posted = [f"{self.point}-{number}" for number in range(5)]
            assert self.client.post("q", posted, key="once").status == 201
            assert self.dying.launch().wait(LONG) == KILLED
            self.dying.process = None
            self.other.launch()
            assert self.client.post("q", ["after"]).status == 201
            posted.append("after")
            wait_until(lambda: len(self._given_up(refusing)) >= len(posted), "what is refused is kept", LONG)
            wait_until(lambda: set(posted) <= set(self.receiver.taken), "everybody is told", LONG)
            wait_until(self._is_settled, "nothing is left to do", LONG)
            assert Counter(self._given_up(refusing)) == Counter(posted), "each is given up once"
            stats = self.client.request("GET", "/v2/queues/q/stats").document()["messages"]
            assert (stats["free"], stats["claimed"]) == (len(posted), 0)
            assert self.other.stop() == 0, self.other.log

    def _subscribe(self, path: str) -> str:
        wish = {
            "subscriber": f"{self.receiver.url}/{path}/{self.point}",
            "options": {"_retry_policy": {"delays": [0]}},
        }
        made = self.client.request("POST", "/v2/queues/q/subscriptions", wish)
        assert made.status == 201, made
        return f"/v2/queues/q/subscriptions/{made.document()['subscription_id']}"

    def _given_up(self, subscription: str) -> list[str]:
        found = self.client.request("GET", f"{subscription}/failed?limit=20").document()
        return [each["body"] for each in found["deliveries"]]

    def _is_settled(self) -> bool:
        with closing(connect(self.uri)) as driver:
            store, now = driver.messages, driver.messages.clock()
            return not any(store.stats(box, now=now).total for box in store.outboxes())


@pytest.mark.parametrize("store", STORES)
def test_a_notifier_that_dies_at_a_point_loses_nothing_and_gives_up_nothing_twice(
    hermod: MakeHermod, tmp_path: Path, store: str
) -> None:
    """All points at once, for most of the time is spent waiting for the leases of those who died.

    Each point has a store of its own; those of a kind share a server, which the other tests of the run use too.
    """
    environ = {"HERMOD_EGRESS_ALLOW": "127.0.0.0/8", "HERMOD_NOTIFIER_LEASE": "5"}
    runs = []
    for point in IN_NOTIFIER:
        folder = tmp_path / point
        folder.mkdir()
        uri = STORES[store](folder)
        api = hermod("api", "--workers", "1", "--threads", "2", store=uri)
        dying = hermod("notifier", store=uri, HERMOD_TEST_CRASH_AT=point, **environ)
        runs.append(Crash(point, uri, api, dying, hermod("notifier", store=uri, **environ)))
    with ThreadPoolExecutor(len(runs)) as threads:
        list(threads.map(Crash.run, runs))
