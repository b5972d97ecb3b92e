"""A thread stays with a client that goes on, but not while others have none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from transport.wsgi.server import PatientWorker


class Connection:
    """What gunicorn has of a client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


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
    return worker


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Connection]]:
    client, server = socket.socketpair()
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
