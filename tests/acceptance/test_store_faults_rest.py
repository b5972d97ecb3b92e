"""Redis and MongoDB fail under real processes: 503 with Retry-After in bounded time, nothing lost, and it resumes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.faults import Connect, Held, Ledger, Proxy, Refused, load
from tests.acceptance.processes import GONE, Client, Hermod, Reply, wait_until
from tests.servers import Process, Store

TIMEOUT = 1.0  # seconds; the setting storage.timeout
BOUND = 2 * TIMEOUT + 2.0  # seconds that a request may take, on a busy machine
QUEUE = "work"


class RestTarget:
    """The queue of a service, over one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post(self, bodies: Sequence[str], key: str | None) -> None:
        self._expect(201, self._client.post(QUEUE, bodies, key=key, ttl=3600))

    def claim(self) -> Sequence[Held]:
        answer = self._client.request(
            "POST", f"/v2/queues/{QUEUE}/claims?limit=3", {"ttl": 3600, "grace": 60}
        )
        if answer.status != 204:
            self._expect(201, answer)
        return [Held(message["body"], message["href"]) for message in answer.messages()]

    def delete(self, held: Held) -> None:
        self._expect(204, self._client.request("DELETE", held.handle))

    def everything(self) -> Sequence[str]:
        return [message["body"] for message in self._client.everything(QUEUE)]

    def _expect(self, status: int, answer: Reply) -> None:
        if answer.status != status:
            refused(answer)


def refused(answer: Reply) -> NoReturn:
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) > 0
    assert answer.document()["title"] == "Service temporarily unavailable"
    raise Refused


def targets(service: Hermod) -> Connect:
    @contextmanager
    def connect() -> Iterator[RestTarget]:
        with service.client() as client:
            yield RestTarget(client)

    return connect


def api(hermod: MakeHermod, uri: str, command: str = "api") -> Hermod:
    return hermod(
        command, "--workers", "2", "--threads", "8", "--store", uri, HERMOD_STORAGE_TIMEOUT=str(TIMEOUT)
    )


PLAIN = {"redis": servers.redis_server, "mongodb": servers.mongodb_server}
EVERY = PLAIN | {"redis-sentinel": servers.redis_sentinel, "redis-cluster": servers.redis_cluster}


@contextmanager
def made(make: Callable[[], Store]) -> Iterator[Store]:
    store = make()
    try:
        yield store
    finally:
        store.stop()


@pytest.fixture(scope="module", params=PLAIN)
def plain(request: pytest.FixtureRequest) -> Iterator[Store]:
    """One server that nobody else uses."""
    with made(PLAIN[request.param]) as store:
        store.start()
        yield store


def only(store: Store) -> Process:
    (process,) = store.processes
    return process


def test_a_server_that_is_restarted(plain: Store, hermod: MakeHermod, tmp_path: Path) -> None:
    service = api(hermod, plain.uri(tmp_path)).start()
    with load(targets(service), bound=BOUND) as ledger:
        ledger.flows()
        only(plain).kill()
        ledger.refuses()
        plain.start()
        ledger.flows()


def test_a_server_that_is_paused_for_ten_seconds(plain: Store, hermod: MakeHermod, tmp_path: Path) -> None:
    service = api(hermod, plain.uri(tmp_path)).start()
    with load(targets(service), bound=BOUND) as ledger:
        ledger.flows()
        only(plain).pause()
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                ledger.refuses(1)
        finally:
            only(plain).resume()
        ledger.flows()


def silent(proxy: Proxy, ledger: Ledger) -> None:
    proxy.hold()
    ledger.refuses()


def gone(proxy: Proxy, ledger: Ledger) -> None:
    proxy.refuse()
    ledger.refuses()


@pytest.mark.parametrize("fail", [silent, gone])
def test_a_server_that_cannot_be_reached(
    plain: Store, hermod: MakeHermod, tmp_path: Path, fail: Callable[[Proxy, Ledger], None]
) -> None:
    with Proxy(only(plain).port) as proxy:
        uri = plain.uri(tmp_path).replace(str(only(plain).port), str(proxy.port))
        uri = uri.replace("replicaSet=hermod", "directConnection=true")  # or else it asks where the server is
        service = api(hermod, uri).start()
        with load(targets(service), bound=BOUND) as ledger:
            ledger.flows()
            fail(proxy, ledger)
            proxy.forward()
            ledger.flows()
        service.kill()


REPLICATED = {
    "redis-sentinel": servers.redis_sentinel,
    "mongodb": lambda: servers.mongodb_server(3),
}


@pytest.mark.parametrize("name", REPLICATED)
def test_a_leader_that_is_killed(name: str, hermod: MakeHermod, tmp_path: Path) -> None:
    with made(REPLICATED[name]) as store:
        store.start()
        service = api(hermod, store.uri(tmp_path)).start()
        with load(targets(service), bound=BOUND) as ledger:
            ledger.flows()
            leader = store.leader()
            assert leader is not None
            leader.kill()
            ledger.refuses(1)
            ledger.flows()


@pytest.mark.parametrize("name", EVERY)
def test_the_service_starts_before_its_store(name: str, hermod: MakeHermod, tmp_path: Path) -> None:
    with made(EVERY[name]) as store:
        service = api(hermod, store.uri(tmp_path), "serve")
        process = service.launch()

        def answers() -> bool:
            assert process.poll() is None, service.log
            with contextlib.suppress(*GONE), service.client() as client:
                status = client.request("GET", "/v2/ping").status
                return status in (204, 503)
            return False

        wait_until(answers, "the service answers")
        with service.client() as client:
            with pytest.raises(Refused):
                refused(client.request("GET", "/v2/ping"))
            with pytest.raises(Refused):
                refused(client.post(QUEUE, ["early"]))
            store.start()
            wait_until(lambda: client.request("GET", "/v2/ping").status == 204, "the service works")
            assert client.post(QUEUE, ["late"]).status == 201
            assert client.everything(QUEUE)[-1]["body"] == "late"


def check(uri: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "transport", "check", "--store", uri]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
    environ["HERMOD_STORAGE_TIMEOUT"] = str(TIMEOUT)
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)


@pytest.mark.parametrize("name", EVERY)
def test_the_check_tells_of_a_store_that_is_down(name: str, tmp_path: Path) -> None:
    with made(EVERY[name]) as store:
        found = check(store.uri(tmp_path))
    assert found.returncode == 1, found
    assert f"hermod: {'MongoDB' if name == 'mongodb' else 'Redis'}: " in found.stderr
    assert "Traceback" not in found.stderr


def test_a_mongodb_that_is_no_replica_set_is_refused_at_the_start(hermod: MakeHermod) -> None:
    process = servers.mongod()
    uri = f"mongodb://127.0.0.1:{process.port}/"
    try:
        process.start()
        servers.eventually(lambda: servers.mongod_says(process))
        found = check(uri)
        assert (found.returncode, "has to be a replica set" in found.stderr) == (1, True), found
        service = api(hermod, uri)
        service.launch()
        assert service.ended() == 1
        assert "has to be a replica set" in service.log
    finally:
        process.stop()
