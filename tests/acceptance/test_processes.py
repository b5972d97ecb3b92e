"""The processes of the service: they start, share, are replaced, drain and end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import Counter

import psutil
import pytest

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import (
    ANSWER,
    CLIENT,
    END,
    GONE,
    PROJECT,
    Client,
    Hermod,
    free_port,
    is_gone,
    together,
    wait_until,
)

MEBIBYTE = 2**20


def server_of(service: Hermod, client: Client) -> psutil.Process:
    """Return the worker at the other end of an open connection."""
    (found,) = [
        worker
        for worker in service.workers()
        for connection in worker.net_connections("tcp")
        if connection.raddr and connection.raddr.port == client.local_port()
    ]
    return found


def one_client_for_each_worker(service: Hermod, wanted: int, stack: contextlib.ExitStack) -> list[Client]:
    """Return clients on open connections to so many different workers, one to each."""
    clients: dict[int, Client] = {}

    def all_met() -> bool:
        client = stack.enter_context(service.client())
        assert client.request("GET", "/v2/ping").status == 204
        clients.setdefault(server_of(service, client).pid, client)
        return len(clients) == wanted

    wait_until(all_met, "every worker accepts a connection")
    return list(clients.values())


def test_one_command_serves_everything(hermod: MakeHermod) -> None:
    service = hermod("serve", "--admin").start()
    with service.client() as client:
        assert client.post("q", [{"hello": "world"}]).status == 201
        (message,) = client.request("POST", "/v2/queues/q/claims").messages()
        assert message["body"] == {"hello": "world"}
        assert client.request("DELETE", message["href"]).status == 204
        health = client.request("GET", "/v2/health", headers={"X-Roles": "admin"}).document()
        assert health["storage_reachable"]
    commands = [word for process in service.tree() for word in process.cmdline()]
    assert "janitor" in commands
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_workers_see_at_once_what_others_did(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "3", "--threads", "2").start()
    with contextlib.ExitStack() as stack:
        clients = one_client_for_each_worker(service, 3, stack)
        for number in range(15):
            here, there, yonder = (clients[(number + n) % 3] for n in range(3))
            queue = f"q{number % 2}"
            (path,) = here.post(queue, [number]).document()["resources"]
            assert there.request("GET", path).document()["body"] == number
            assert yonder.everything(queue)[-1]["body"] == number
            claim = there.request("POST", f"/v2/queues/{queue}/claims?limit=1")
            assert claim.status == 201
            assert yonder.request("POST", f"/v2/queues/{queue}/claims").status == 204
            assert here.request("DELETE", path).status == 403
            assert yonder.request("DELETE", claim.messages()[0]["href"]).status == 204
            assert here.request("GET", path).status == 404
            if number % 5 == 4:
                assert there.request("DELETE", f"/v2/queues/{queue}").status == 204
                assert here.everything(queue) == []


def test_a_request_in_flight_is_finished_when_the_service_is_told_to_stop(hermod: MakeHermod) -> None:
    service = hermod("serve", "--workers", "1").start()
    body = json.dumps({"messages": [{"body": "in flight"}]}).encode()
    identity = f"Host: h\r\nClient-ID: {CLIENT}\r\nX-Project-ID: {PROJECT}\r\n"
    ping = f"GET /v2/ping HTTP/1.1\r\n{identity}\r\n"
    post = f"POST /v2/queues/q/messages HTTP/1.1\r\n{identity}Content-Length: {len(body)}\r\n"
    address = ("127.0.0.1", service.port)
    with (
        socket.create_connection(address, timeout=ANSWER) as idle,
        socket.create_connection(address, timeout=ANSWER) as slow,
    ):
        idle.sendall(ping.encode())
        assert idle.recv(65536).startswith(b"HTTP/1.1 204 ")
        slow.sendall(f"{post}Expect: 100-continue\r\n\r\n".encode() + body[:10])
        assert slow.recv(65536).startswith(b"HTTP/1.1 100 ")
        (worker,) = service.workers()
        service.terminate()
        # An idle connection is closed by a worker that drains: so it has been told.
        while idle.recv(65536):
            pass
        assert not is_gone(worker)
        slow.sendall(body[10:])
        answer = b""
        while piece := slow.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert service.ended() == 0
    assert is_gone(worker)
    assert "Traceback" not in service.log
    service.start()
    with service.client() as client:
        assert [message["body"] for message in client.everything("q")] == ["in flight"]


def test_a_killed_worker_is_replaced_and_nothing_is_lost(hermod: MakeHermod) -> None:
    service = hermod("serve", "--workers", "2", "--threads", "4").start()
    over = threading.Event()
    answered: list[str] = []
    asked: Counter[str] = Counter()

    def produce(producer: int) -> None:
        number = 0
        with service.client() as client:
            while not over.is_set():
                body = f"{producer}/{number}"
                with contextlib.suppress(*GONE):
                    asked[body] += 1
                    answer = client.post("q", [body], key=body.replace("/", "-"))
                    assert answer.status == 201, answer
                    answered.append(body)
                    number += 1

    def murder() -> None:
        try:
            for _ in range(4):
                goal = len(answered) + 40
                wait_until(lambda: len(answered) >= goal, "messages are posted")  # noqa: B023
                wait_until(lambda: len(service.workers()) == 2, "both workers run")
                victim, other = service.workers()
                victim.kill()
                wait_until(lambda: len(new_workers({victim, other})) == 1, "a worker is replaced")  # noqa: B023
        finally:
            over.set()

    def new_workers(old: set[psutil.Process]) -> list[psutil.Process]:
        return [worker for worker in service.workers() if worker not in old]

    together(5, lambda index: produce(index) if index else murder())
    with service.client() as client:
        found = Counter(message["body"] for message in client.everything("q"))
    assert set(answered) <= set(found) <= set(asked)
    assert max(found.values()) == 1
    assert service.stop() == 0


def test_an_idle_worker_is_small(hermod: MakeHermod) -> None:
    service = hermod("serve", "--workers", "2", "--admin").start()
    with contextlib.ExitStack() as stack:
        for client in one_client_for_each_worker(service, 2, stack):
            assert client.request("PUT", "/v2/queues/q", {"_default_message_ttl": 60}).status in (201, 204)
            for number in range(20):
                assert client.post("q", [{"number": number, "text": "x" * 1000}]).status == 201
            assert client.request("GET", "/v2/queues/q/messages?echo=true").status == 200
            assert client.request("POST", "/v2/queues/q/claims").status == 201
            assert client.request("GET", "/v2/queues?detailed=true").status == 200
            assert client.request("GET", "/v2/health", headers={"X-Roles": "admin"}).status == 200
    sizes = {process.pid: process.memory_info().rss / MEBIBYTE for process in service.workers()}
    assert len(sizes) == 2
    assert max(sizes.values()) < 80, sizes


@pytest.mark.parametrize("command", ["serve", "api"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_service_that_lets_everybody_in_is_not_shown_to_everybody(
    hermod: MakeHermod, command: str, host: str
) -> None:
    service = hermod(command, "--bind", f"{host}:{free_port()}")
    service.launch()
    assert service.ended() == 2
    assert "allow_unauthenticated" in service.log
    assert "auth_strategy" in service.log
    assert "Traceback" not in service.log
    assert len(service.log.splitlines()) == 1
    assert not service.store.exists()


def test_a_port_that_is_taken_ends_the_second_service(hermod: MakeHermod) -> None:
    first = hermod("serve").start()
    second = hermod("serve")
    second.port = first.port
    process = second.launch()
    assert process.wait(END) not in (None, 0)
    second.process = None
    assert str(first.port) in second.log
    assert "in use" in second.log
    assert "Traceback" not in second.log
    with first.client() as client:
        assert client.post("q", [1]).status == 201
    assert first.stop() == 0


def test_the_end_of_the_supervisor_is_the_end_of_all(hermod: MakeHermod) -> None:
    service = hermod("serve").start()
    root, *parts = service.tree()
    assert parts
    root.kill()
    assert service.ended() == -9
    wait_until(lambda: all(map(is_gone, parts)), "the parts end", END)
