"""A new connection goes to the worker that has fewest."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from transport.wsgi.balance import Balance
from transport.wsgi.worker import _YIELD, PatientWorker


def test_nobody_has_fewer_than_the_only_worker():
    balance = Balance(2)
    balance.note(1, 7)
    assert not balance.is_fuller(7)


def test_a_worker_sees_that_another_has_fewer():
    balance = Balance(2)
    balance.note(1, 3)
    balance.note(2, 2)
    assert balance.is_fuller(3)
    assert not balance.is_fuller(2)


def test_a_worker_that_is_gone_does_not_count():
    balance = Balance(2)
    balance.note(1, 3)
    balance.note(2, 0)
    balance.leave(2)
    assert not balance.is_fuller(3)


def test_a_worker_has_a_place_beside_those_that_it_replaces():
    balance = Balance(2)
    for age in range(1, 5):
        balance.note(age, age)
    for age in range(1, 3):
        balance.leave(age)
    assert balance.is_fuller(4)
    assert not balance.is_fuller(3)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def worker() -> Iterator[PatientWorker]:
    app = SimpleNamespace(balance=Balance(2), most_body=1000, let_go=lambda: None)
    worker = PatientWorker(1, os.getpid(), [], app, 30, Config(), None)
    worker.pid = os.getpid()
    worker.poller = selectors.DefaultSelector()
    with closing(worker.poller), closing(worker.tmp._tmp):
        yield worker


def accepted(worker: PatientWorker) -> int:
    count = len(worker._silent.since)
    for connection in list(worker._silent.since):
        connection.close()
    return count


def test_a_worker_that_has_more_leaves_a_connection_to_another(worker, listener, monkeypatch):
    worker.nr_conns = 1
    worker.app.balance.note(2, 0)
    theirs: list[Any] = []
    monkeypatch.setattr(time, "sleep", lambda _: theirs.append(listener.accept()[0]))
    with socket.create_connection(listener.getsockname()):
        worker.accept(listener)
        assert accepted(worker) == 0
        assert worker.nr_conns == 1
        assert len(theirs) == 1
        theirs[0].close()


def test_it_takes_the_connection_if_the_other_does_not(worker, listener, monkeypatch):
    worker.nr_conns = 1
    worker.app.balance.note(2, 0)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with socket.create_connection(listener.getsockname()):
        worker.accept(listener)
        assert accepted(worker) == 1
        assert worker.nr_conns == 2
        assert pauses == [_YIELD]


def test_workers_that_have_as_many_do_not_wait_for_each_other(worker, listener, monkeypatch):
    worker.app.balance.note(2, 0)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("It waits."))
    with socket.create_connection(listener.getsockname()):
        worker.accept(listener)
        assert accepted(worker) == 1


def test_a_worker_says_how_many_it_has_until_it_ends(worker, monkeypatch):
    balance = worker.app.balance
    worker.nr_conns = 2
    assert balance.is_fuller(3)
    assert not balance.is_fuller(2)
    worker.alive = True
    monkeypatch.setattr(worker, "method_queue", SimpleNamespace(defer=lambda _: None))
    worker.handle_exit(None, None)
    worker.nr_conns = 1
    assert not balance.is_fuller(3)


def test_a_worker_that_is_not_forked_yet_says_nothing(worker):
    worker.app.balance.leave(1)
    worker.pid = "[booting]"
    worker.nr_conns = 0
    assert not worker.app.balance.is_fuller(1)


def test_a_worker_that_begins_has_none(worker, monkeypatch):
    monkeypatch.setattr(ThreadWorker, "run", lambda _: None)
    assert not worker.app.balance.is_fuller(1)
    worker.run()
    assert worker.app.balance.is_fuller(1)


def test_a_worker_that_ends_at_once_does_not_count(worker, monkeypatch):
    worker.nr_conns = 1
    monkeypatch.setattr(ThreadWorker, "handle_quit", lambda _worker, *_signal: None)
    worker.handle_quit(None, None)
    assert not worker.app.balance.is_fuller(2)
