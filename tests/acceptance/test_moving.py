"""Pools are drained from store to store while producers and consumers go on, and a mover is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest

from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import Client, Hermod, Reply, wait_until

ADMIN = {"X-Roles": "admin"}
QUEUES = [f"live-{number}" for number in range(4)]  # each has one consumer
SHARED = "shared"  # has several
FULL = [f"full-{number:02}" for number in range(20)]  # are only moved
MANY = 200  # messages in each of these
LEASE = 30.0  # seconds that a mover which was killed keeps others waiting
SETTINGS = {
    "HERMOD_POOLING": "true",
    "HERMOD_ADMIN": "true",
    "HERMOD_JANITOR_INTERVAL": "0.1",
    "HERMOD_STORAGE_TIMEOUT": "2",
}


class Traffic:
    """Producers and consumers, and what they were told."""

    def __init__(self, service: Hermod) -> None:
        self._service = service
        self._stop = Event()
        self._quiet = Event()  # no more posts
        self._lock = Lock()
        self.posted: dict[str, list[tuple[int, int]]] = defaultdict(list)  # queue -> what was acknowledged
        self.taken: dict[str, list[tuple[int, int]]] = defaultdict(
            list
        )  # queue -> what was deleted, in order
        self.deleted: set[str] = set()  # ids, once the deletion was acknowledged
        self.revenants: list[str] = []  # ids that were handed out after that
        self.failures: list[str] = []
        self._producers = [Thread(target=self._run, args=(self._produce, number)) for number in range(2)]
        self._threads = [
            *self._producers,
            *(Thread(target=self._run, args=(self._consume, [queue])) for queue in QUEUES),
            *(Thread(target=self._run, args=(self._consume, [SHARED])) for _ in range(2)),
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.set()
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def finish(self) -> None:
        """Stop posting, and let the consumers take the rest."""
        self._quiet.set()
        for producer in self._producers:
            producer.join(60)
        wait_until(
            lambda: self.failures or self._count(self.taken) == self._count(self.posted), "all is taken"
        )

    def posts(self) -> int:
        """Return how many posts were acknowledged."""
        return self._count(self.posted)

    @staticmethod
    def _count(what: dict[str, list[tuple[int, int]]]) -> int:
        return sum(map(len, list(what.values())))

    def _run(self, work: Any, argument: Any) -> None:
        try:
            with self._service.client() as client:
                work(client, argument)
        except BaseException as error:
            self.failures.append(repr(error))

    def _check(self, reply: Reply, what: str) -> None:
        if not 200 <= reply.status < 300:
            self.failures.append(f"{what}: {reply.status} {reply.body!r}")

    def _produce(self, client: Client, me: int) -> None:
        number = 0
        while not self._quiet.wait(0.002):
            number += 1
            for queue in (*QUEUES, SHARED):
                reply = client.post(queue, [[me, number]], ttl=3600)
                self._check(reply, "post")
                if reply.status == 201:
                    with self._lock:
                        self.posted[queue].append((me, number))

    def _consume(self, client: Client, queues: list[str]) -> None:
        while not self._stop.wait(0.002):
            for queue in queues:
                path = f"/v2/queues/{queue}/claims?limit=20"
                reply = client.request("POST", path, {"ttl": 3600, "grace": 60})
                self._check(reply, "claim")
                for message in reply.messages() if reply.status == 201 else []:
                    self._take(client, queue, message)

    def _take(self, client: Client, queue: str, message: dict[str, Any]) -> None:
        if message["id"] in self.deleted:
            self.revenants.append(message["id"])
        reply = client.request("DELETE", message["href"])
        self._check(reply, "delete")
        with self._lock:
            self.deleted.add(message["id"])
            self.taken[queue].append((message["body"][0], message["body"][1]))


def command(service: Hermod, *arguments: str) -> subprocess.Popen[str]:
    """Start another process on the same store."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
    line = [sys.executable, "-m", "transport", *arguments, "--store", f"sqlite:///{service.store}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env={**environ, **SETTINGS}, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def janitor(service: Hermod) -> Iterator[subprocess.Popen[str]]:
    """Run a janitor, which is ended by a signal if it has not been killed."""
    process = command(service, "janitor")
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=40)


class Operator:
    """Whoever adds, drains and removes pools."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def request(self, method: str, path: str, body: object = None) -> Any:
        reply = self._client.request(method, path, body, headers=ADMIN)
        assert 200 <= reply.status < 300, reply
        return reply.document() if reply.body else None

    def add(self, name: str, uri: str) -> None:
        self.request("PUT", f"/v2/pools/{name}", {"uri": uri, "weight": 1})

    def progress(self, name: str) -> Any:
        return self.request("GET", f"/v2/pools/{name}/drain")


@pytest.fixture
def service(hermod: MakeHermod) -> Hermod:
    return hermod("api", "--workers", "2", "--threads", "8", **SETTINGS).start()


def test_pools_are_drained_under_load_and_nothing_is_lost(service: Hermod, tmp_path: Path) -> None:
    redis, mongodb = servers.redis_uri(tmp_path), servers.mongodb_uri(tmp_path)
    with service.client() as client, janitor(service) as first:
        operator = Operator(client)
        operator.add("sqlite", f"sqlite:///{tmp_path}/pool.db")
        for queue in FULL:
            assert client.post(queue, list(range(MANY)), ttl=3600).status == 201
        with Traffic(service) as traffic:
            wait_until(lambda: traffic.failures or traffic.posts() > 50, "there is traffic")
            operator.add("redis", redis)
            drain = command(service, "pool", "drain", "sqlite", "--detach")
            output, errors = drain.communicate(timeout=60)
            assert (drain.returncode, errors) == (0, ""), output
            wait_until(lambda: operator.progress("sqlite")["queues_moved"] >= 3, "some queues have moved")
            first.kill()
            first.communicate(timeout=40)
            before = traffic.posts()
            assert operator.progress("sqlite")["queues_left"] > 0, "it was killed in the middle"
            with janitor(service):
                wait_until(
                    lambda: operator.progress("sqlite")["queues_left"] == 0, "all have moved", LEASE + 60
                )
                assert traffic.posts() > before
                operator.add("mongodb", mongodb)
                drain = command(service, "pool", "drain", "redis")
                output, errors = drain.communicate(timeout=100)
                assert (drain.returncode, errors) == (0, ""), output
                assert output.splitlines()[-1].startswith("redis: drained  0 queues left"), output
            assert traffic.failures == []
            traffic.finish()

        assert traffic.failures == []
        assert traffic.revenants == []
        assert traffic.posts() > before
        for queue in QUEUES:
            for producer in range(2):
                taken = [number for who, number in traffic.taken[queue] if who == producer]
                assert taken == sorted(taken), "one producer, one consumer: in order"
        for queue in (*QUEUES, SHARED):
            assert sorted(traffic.taken[queue]) == sorted(traffic.posted[queue]), "all of it, once"
        for queue in FULL:
            assert [message["body"] for message in client.everything(queue)] == [*range(MANY)]
        assert operator.progress("mongodb")["queues_left"] == len(QUEUES) + 1 + len(FULL)
