"""Clients wait for messages at real processes: what one process is told wakes those who wait at another."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import servers
from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import ANSWER, CLIENT, Client, Hermod, Reply, wait_until

AT_ONCE = 10.0  # seconds; half of what is waited, and far more than it takes

STORES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/shared.db",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}


class Pair:
    """Two API processes over one store."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.services = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            arguments = ("--workers", "1", "--threads", "4")
            self.services.append(Hermod(folder=folder / name, uri=uri, command="api", arguments=arguments))

    def start(self) -> None:
        for service in self.services:
            service.start()

    def stop(self) -> None:
        for service in self.services:
            if service.process is not None:
                service.kill()
            sys.stdout.write(service.log[-10_000:])


@pytest.fixture(scope="module", params=STORES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    made = Pair(folder, STORES[request.param](folder))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Waiter:
    """A request that waits, at one of the services; it does when this is made."""

    def __init__(self, service: Hermod, path: str, body: object = None, *, method: str = "POST") -> None:
        self._client = Client(service.port, client_id=CLIENT[::-1])
        self._sent = time.monotonic()
        self._client.send(method, path, body)

    def answered(self) -> Reply:
        reply = self._client.receive()
        self.hang_up()
        assert time.monotonic() - self._sent < AT_ONCE, "it waited until its time was over"
        return reply

    def hang_up(self) -> None:
        self._client._connection.close()


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue of the test's own."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)[-60:]


def test_a_post_to_one_wakes_who_waits_at_the_other(pair, queue):
    here, there = pair.services
    with there.client() as client:
        for number in range(3):
            waiter = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {"ttl": 60, "grace": 60})
            reader = Waiter(here, f"/v2/queues/{queue}-r/messages?wait=20", method="GET")
            assert client.post(queue, [number]).status == 201
            assert client.post(f"{queue}-r", [number]).status == 201
            (claimed,), (listed,) = waiter.answered().messages(), reader.answered().messages()
            assert claimed["body"] == listed["body"] == number
            assert client.request("DELETE", claimed["href"]).status == 204
            assert client.request("DELETE", listed["href"]).status == 204


def test_a_delay_that_ends_wakes(pair, queue):
    here, there = pair.services
    with there.client() as client:
        assert client.post(queue, ["before"], delay=1).status == 201
        waiter = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {})
        assert [message["body"] for message in waiter.answered().messages()] == ["before"]
        waiter = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {})
        assert client.post(queue, ["meanwhile"], delay=1).status == 201
        assert [message["body"] for message in waiter.answered().messages()] == ["meanwhile"]


def test_a_claim_that_is_released_wakes(pair, queue):
    here, there = pair.services
    with there.client() as client:
        assert client.post(queue, [1]).status == 201
        claim = client.request("POST", f"/v2/queues/{queue}/claims", {})
        waiter = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {})
        assert client.request("DELETE", claim.headers["location"]).status == 204
        (message,) = waiter.answered().messages()
        assert message["body"] == 1


def test_every_message_goes_to_one_of_those_who_wait(pair, queue):
    waiters = [
        Waiter(service, f"/v2/queues/{queue}/claims?wait=20&limit=1", {})
        for service in pair.services
        for _ in range(10)
    ]
    with pair.services[1].client() as client:
        for first in range(0, 20, 4):
            assert client.post(queue, list(range(first, first + 4))).status == 201
    found = [message["body"] for waiter in waiters for message in waiter.answered().messages()]
    assert sorted(found) == list(range(20))


def test_who_hung_up_takes_nothing(pair, queue):
    here, there = pair.services
    gone = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {})
    with there.client() as client, here.client() as other:
        for _ in range(10):  # which come later and are answered, so that it waits
            assert other.request("GET", f"/v2/queues/{queue}/stats").status == 200
        gone.hang_up()
        assert client.post(queue, [1]).status == 201
        waiter = Waiter(here, f"/v2/queues/{queue}/claims?wait=20", {})
        (message,) = waiter.answered().messages()
        assert message["body"] == 1


def test_who_waits_is_answered_when_the_service_is_told_to_stop(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1", "--threads", "4").start()
    waiters = [Waiter(service, "/v2/queues/q/claims?wait=20", {}) for _ in range(10)]
    reader = Waiter(service, "/v2/queues/q/messages?wait=20", method="GET")
    with service.client() as client:  # it is answered after them, so they wait
        assert client.request("GET", "/v2/ping").status == 204
    service.terminate()
    assert [waiter.answered().status for waiter in waiters] == [204] * 10
    assert reader.answered().messages() == []
    assert service.ended() == 0
    assert "Traceback" not in service.log


# --- many


WAITERS = 200


@contextmanager
def monitored(uri: str) -> Iterator[Callable[[], list[str]]]:
    """Note the commands that a Redis server is given; yields what returns those since it was last asked."""
    server = redis.Redis.from_url(uri.partition("?")[0])
    commands: list[str] = []

    def listen(monitor: Any) -> None:
        for found in monitor.listen():
            commands.append(found["command"])
            if found["command"] == "ECHO mark-end":
                return

    def since() -> list[str]:
        """Wait until everything that came before this call was noted."""
        token = f"mark-{time.monotonic_ns()}"
        server.execute_command("ECHO", token)
        wait_until(lambda: f"ECHO {token}" in commands, "the monitor keeps up")
        found = [command for command in commands if "mark-" not in command]
        commands.clear()
        return found

    with closing(server), server.monitor() as monitor:
        thread = threading.Thread(target=listen, args=(monitor,), daemon=True)
        thread.start()
        try:
            yield since
        finally:
            server.execute_command("ECHO", "mark-end")
            thread.join(ANSWER)


def test_two_hundred_wait_at_one_process_and_cost_nothing(hermod: MakeHermod, tmp_path: Path) -> None:
    uri = servers.redis_uri(tmp_path)
    arguments = ("--workers", "1", "--threads", "4")
    service = hermod("api", *arguments, store=uri, HERMOD_API_WAITERS=str(WAITERS)).start()
    with monitored(uri) as commands, ExitStack() as stack:
        waiters = [
            Waiter(service, f"/v2/queues/q{number % 4}/claims?wait=20&limit=1", {})
            for number in range(WAITERS)
        ]
        client = stack.enter_context(service.client())

        (worker,) = service.workers()
        wait_until(lambda: worker.num_threads() > WAITERS, "all of them are taken")

        def quiet() -> bool:
            commands()
            time.sleep(0.3)
            return not commands()

        # While nothing happens the store is asked nothing.
        wait_until(quiet, "all of them wait")
        time.sleep(1)
        asked = commands()
        assert asked == [], asked

        # One more is answered at once.
        start = time.monotonic()
        assert client.request("POST", "/v2/queues/q0/claims?wait=20", {}).status == 204
        assert time.monotonic() - start < AT_ONCE

        # Posts and claims of others take as many commands as ever, and wake nobody.
        assert client.post("busy", [0]).status == 201
        commands()
        for number in range(50):
            assert client.post("busy", [number]).status == 201
            claimed = client.request("POST", "/v2/queues/busy/claims?limit=1", {})
            (message,) = claimed.messages()
            assert client.request("DELETE", message["href"]).status == 204
        scripts = [command for command in commands() if command.startswith("EVALSHA")]
        assert len(scripts) <= 3 * 50 + 5

        # Each message is had by one of them.
        for number in range(WAITERS):
            assert client.post(f"q{number % 4}", [number]).status == 201
        found = [message["body"] for waiter in waiters for message in waiter.answered().messages()]
        assert sorted(found) == list(range(WAITERS))
    assert service.stop() == 0
    assert "Traceback" not in service.log
