"""Bad neighbours: who is slow, silent or greedy keeps nobody else waiting."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.crowds import (
    BODY,
    HEAD,
    POST,
    asking,
    connected,
    is_as_fast,
    latency,
    read_answer,
    trickling,
)
from tests.acceptance.processes import Client, Hermod, Reply, together, wait_until

SLOW = 200  # clients
SILENT = 500
TOO_MANY = 1300  # connections; a worker of this service keeps some more than a thousand
READERS = 16
PAGE = 20  # messages of an answer that takes its time to be read
LARGE = 250_000  # bytes of each
TINY_QUEUES = 1000
DEEP = 20_000  # messages
ENVIRON = {"HERMOD_API_WAITERS": "0", "HERMOD_API_BACKLOG": "20"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hermod]:
    """One worker with few threads, so that whoever keeps one is felt."""
    made = Hermod(
        folder=tmp_path_factory.mktemp("neighbours"),
        command="api",
        arguments=["--workers", "1", "--threads", "4"],
        environ=ENVIRON,
    ).start()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module")
def before(service: Hermod) -> float:
    """How long it takes while nobody else is there."""
    return latency(service)


def test_slow_heads(service: Hermod, before: float) -> None:
    head = POST % (b"q", len(BODY))
    with connected(service, SLOW, sent=head[:20]) as sockets, trickling(sockets, head[20:]):
        assert is_as_fast(service, before)


def test_slow_bodies(service: Hermod, before: float) -> None:
    body = b'{"messages": [{"body": "%s"}]}' % (b"x" * 2000)
    with connected(service, SLOW, sent=POST % (b"q", len(body))) as sockets, trickling(sockets, body):
        assert is_as_fast(service, before)


def test_slow_chunks(service: Hermod, before: float) -> None:
    head = b"POST /v2/queues/q/messages HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with connected(service, SLOW, sent=head) as sockets, trickling(sockets, b"1\r\n \r\n" * 1000):
        assert is_as_fast(service, before)


def test_what_comes_slowly_is_served_when_it_is_there(service: Hermod) -> None:
    post = POST % (b"slow", len(BODY)) + BODY
    expecting = post.replace(b"Content", b"Expect: 100-continue\r\nContent", 1)
    with connected(service, 3) as sockets:
        for byte in post:
            sockets[0].sendall(bytes([byte]))
        sockets[1].sendall(post + post[:50])
        sockets[2].sendall(expecting[: -len(BODY)])
        assert sockets[2].recv(25, 256) == b"HTTP/1.1 100 Continue\r\n\r\n"  # 256: MSG_WAITALL
        sockets[2].sendall(BODY)
        assert [read_answer(each)[0] for each in sockets] == [201] * 3
        sockets[1].sendall(post[50:])
        assert read_answer(sockets[1])[0] == 201


def test_connections_that_say_nothing(service: Hermod, before: float) -> None:
    with connected(service, SILENT):
        assert is_as_fast(service, before)


def test_more_connections_than_there_is_room_for(service: Hermod, before: float) -> None:
    """Those that say nothing are the first to go, and whoever comes next is served."""
    with service.client() as patient:
        assert patient.request("GET", "/v2/ping").status == 204
        with connected(service, TOO_MANY) as sockets:
            assert is_as_fast(service, before)
            assert patient.request("GET", "/v2/ping").status == 204
            assert sockets[0].recv(1) == b""  # which was closed
    (worker,) = service.workers()
    assert worker.num_fds() < TOO_MANY


def test_clients_that_do_not_close_their_end(service: Hermod, before: float) -> None:
    get = b"GET / HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n"
    with connected(service, SLOW, sent=get) as sockets:
        assert is_as_fast(service, before)
        assert sockets[0].recv(12) == b"HTTP/1.1 300"


def test_clients_that_do_not_read(service: Hermod, before: float) -> None:
    with service.client() as client:
        for number in range(PAGE):
            assert client.post("large", [f"{number:02}".ljust(LARGE, "x")]).status == 201
    get = b"GET /v2/queues/large/messages?limit=20&echo=true HTTP/1.1\r\n" + HEAD + b"\r\n"
    with connected(service, READERS, sent=get, window=4096) as sockets:
        assert is_as_fast(service, before)
        for each in sockets[:2]:
            for _ in range(2):
                status, body = read_answer(each)
                assert status == 200
                found = [message["body"][:2] for message in json.loads(body)["messages"]]
                assert found == [f"{number:02}" for number in range(PAGE)]
                each.sendall(get)
    with service.client() as client:
        assert client.request("DELETE", "/v2/queues/large").status == 204


def test_slow_clients_do_not_keep_the_service_from_ending(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1", "--threads", "1", **ENVIRON).start()
    with connected(service, 5), connected(service, 5, sent=POST % (b"q", 1000)):
        with service.client() as client:
            assert client.request("GET", "/v2/ping").status == 204
        service.terminate()
        process = service.process
        assert process is not None
        wait_until(lambda: process.poll() is not None, "it ends sooner than api.graceful_timeout", 20)
        assert service.ended() == 0


def test_a_project_that_floods_has_a_rate(hermod: MakeHermod) -> None:
    service = hermod("api", "--workers", "1", "--threads", "4", HERMOD_RATE_REQUESTS="200", **ENVIRON).start()

    def flood(client: Client) -> Reply:
        return client.post("q", ["x"])

    alone = latency(service, "somebody")
    with asking(service, 8, flood, project="flood") as crowd:
        wait_until(lambda: len(crowd.of(429)) > 50, "the flood is refused")
        assert is_as_fast(service, alone)
    assert crowd.lost == []
    assert {answer.status for answer in crowd.answers} == {201, 429}
    assert {answer.retry_after for answer in crowd.of(429)} == {"1"}


def test_many_queues_and_a_deep_one(service: Hermod, before: float) -> None:
    with service.client() as client:
        for _ in range(DEEP // 1000):
            assert client.post("deep", [1] * 1000).status == 201

    def fill(index: int) -> None:
        with service.client() as client:
            for number in range(index, TINY_QUEUES, 4):
                assert client.post(f"tiny-{number}", [1]).status == 201

    together(4, fill)
    turns = iter(range(10**9))

    def look(client: Client) -> Reply:
        turn = next(turns)
        if turn % 3:
            return client.request("POST", f"/v2/queues/tiny-{turn % TINY_QUEUES}/claims")
        return client.request("POST", "/v2/queues/deep/claims?limit=20")

    assert is_as_fast(service, before)
    with asking(service, 1, look) as crowd:
        assert is_as_fast(service, before)
    assert {answer.status for answer in crowd.answers} <= {201, 204}
