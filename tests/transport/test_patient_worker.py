"""A thread stays with a client that goes on, but not while others have none."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from transport.wsgi import connection as connection_module
from transport.wsgi import worker as worker_module
from transport.wsgi.connection import PatientSocket
from transport.wsgi.worker import PatientWorker


class Connection:
    """A client whose requests have a byte each."""

    def __init__(self, sock: PatientSocket) -> None:
        self.sock = sock

    def receive(self, _most: int) -> bool:
        return True

    def follows(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self.sock.recv(1, socket.MSG_PEEK)  # which waits for a moment
            return True
        return False


class App:
    most_body = 1000


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What gunicorn was told to handle, a byte each."""
    requests: list[bytes] = []

    def handle(_worker: ThreadWorker, conn: Connection) -> bool:
        requests.append(conn.sock.recv(1))
        return requests[-1] not in (b"", b".")

    monkeypatch.setattr(ThreadWorker, "handle", handle)
    return requests


@pytest.fixture
def worker() -> PatientWorker:
    worker: PatientWorker = object.__new__(PatientWorker)  # without gunicorn's arbiter
    worker.alive = True
    worker._queued = set()
    worker.app = App()
    return worker


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    client, other = socket.socketpair()
    server = PatientSocket(fileno=other.detach())
    with closing(client), closing(server):
        yield client, Connection(server)


def test_requests_that_follow_at_once_are_served_by_the_same_thread(worker, served, pair):
    client, conn = pair
    client.sendall(b"abc")
    assert worker.handle(conn) is True  # the connection goes on, and nothing follows for now
    assert served == [b"a", b"b", b"c"]


def test_a_client_that_closes_its_connection_is_let_go(worker, served, pair):
    client, conn = pair
    client.sendall(b"a")
    client.close()
    assert worker.handle(conn) is False
    assert served == [b"a", b""]


def test_a_connection_that_is_to_be_closed_is_not_waited_for(worker, served, pair):
    client, conn = pair
    client.sendall(b".b")
    assert worker.handle(conn) is False
    assert served == [b"."]


def test_a_thread_is_given_back_while_another_client_has_none(worker, served, pair):
    client, conn = pair
    client.sendall(b"ab")
    worker._queued.add(object())
    assert worker.handle(conn) is True
    assert served == [b"a"]


def test_a_thread_is_given_back_when_the_process_ends(worker, served, pair):
    client, conn = pair
    client.sendall(b"ab")
    worker.alive = False
    assert worker.handle(conn) is True
    assert served == [b"a"]


def test_a_thread_is_given_back_when_a_request_is_not_all_there(worker, served, pair, monkeypatch):
    _client, conn = pair
    monkeypatch.setattr(conn, "receive", lambda _most: False)
    assert worker.handle(conn) is worker_module._UNREAD
    assert served == []


def test_a_thread_is_given_back_when_an_answer_is_not_read_at_once(worker, served, pair):
    client, conn = pair
    client.sendall(b"ab")
    conn.sock.unsent = bytearray(b"the rest")
    assert worker.handle(conn) is True
    assert served == [b"a"]


def test_what_a_client_does_not_read_at_once_is_kept_and_sent_later(pair):
    client, conn = pair
    answer = bytes(range(256)) * 20_000

    conn.sock.sendall(b"head")
    conn.sock.sendall(answer)
    conn.sock.sendall(b"end")
    conn.sock.flush()

    assert conn.sock.unsent
    received = bytearray()
    while not conn.sock.send_on():
        received += client.recv(65536)
    conn.sock.shutdown(socket.SHUT_WR)
    while piece := client.recv(65536):
        received += piece
    assert received == b"head" + answer + b"end"
    assert conn.sock.unsent is None


def test_the_pieces_of_an_answer_are_sent_as_one(worker, pair, monkeypatch):
    def handle(_worker: ThreadWorker, conn: Connection) -> bool:
        conn.sock.sendall(b"head ")
        conn.sock.sendall(b"body")
        client.settimeout(0)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        return False

    client, conn = pair
    monkeypatch.setattr(ThreadWorker, "handle", handle)
    worker.handle(conn)

    assert client.recv(100) == b"head body"


@pytest.fixture
def real(pair) -> connection_module.Connection:
    _client, conn = pair
    found = connection_module.Connection(Config(), conn.sock, ("127.0.0.1", 1), ("127.0.0.1", 2))
    found.init()
    return found


def test_what_follows_within_a_moment_is_read_once(real, pair):
    client, _ = pair
    assert not real.follows()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert real.follows()
    assert real.follows()
    assert real.receive(1000)
    assert real.parser.unreader.take_buffered() == b"GET / HTTP/1.1\r\n\r\n"


def test_half_a_request_that_follows_is_completed(real, pair):
    client, _ = pair
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
    assert real.follows()
    assert not real.receive(1000)
    client.sendall(b"cd")
    real.receive_more()
    assert real.arrival.whole
    assert real.receive(1000)
    assert real.parser.unreader.take_buffered().endswith(b"abcd")


def test_the_end_of_a_client_follows_too(real, pair):
    client, _ = pair
    client.close()
    assert real.follows()
    assert real.receive(1000)
    assert not real.read_ahead


def test_who_has_waited_longest_is_let_go_first():
    ward: Any = worker_module.Ward(10)
    ward.since = {"a": 0.0, "b": 5.0, "c": 6.0}
    assert overdue(ward, 9.9) == []
    assert overdue(ward, 15.0) == ["a", "b"]
    assert list(ward.since) == ["c"]


def overdue(ward: Any, now: float) -> list[str]:
    """Let those go that take too long."""
    gone = []
    for each in ward.overdue(now):
        gone.append(each)
        del ward.since[each]
    return gone
