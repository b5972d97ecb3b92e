"""A client process against servers that answer well, badly, late, or not at all."""

import socket
import threading
import time
from contextlib import closing, contextmanager, suppress

import pytest

from bench.client import UNANSWERED, Order, work
from bench.connection import Connection, Unexpected
from bench.rest import Target, list_page
from bench.workloads import Load

POSTED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
DELETED = b"HTTP/1.1 204 No Content\r\n\r\n"
IDS = b'{"messages":[{"id":"a","body":1},{"id": "b","body":2}]}'
CLAIMED = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%s" % (len(IDS), IDS)


class Server:
    """Answers each request by what a function makes of it: bytes, or None to hang up."""

    def __init__(self, answer):
        self.requests = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.target = Target(url=f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # A thread that waits in accept() or recv() is woken by a shutdown, not by a close.
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        received = b""
        while True:
            try:
                part = connection.recv(65536)
                received += part
                if not part:
                    return
                if not complete(received):
                    continue
                self.requests.append(received)
                answer = self._answer(received)
                received = b""
                if answer is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(answer)
            except OSError:
                return


def complete(request):
    head, end, body = request.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(head.lower().rpartition(b"content-length: ")[2])


@contextmanager
def serving(answer):
    with closing(Server(answer)) as server:
        yield server


def order(target, load="post", **values):
    given = {"connections": 1, "total": 1, "start": time.time(), "seconds": 0.3, **values}
    return Order(target=target, load=Load(name=load, batch=2), **given)


class Stalling:
    """Answers at once, but hangs once, for so many seconds, at the tenth request."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.count = 0

    def __call__(self, request):
        self.count += 1
        if self.count == 10:
            time.sleep(self.seconds)
        return POSTED


def slow(tally):
    return sum(latency >= 0.1 for latency in tally.counts["post"].latencies)


def test_a_stall_shows_in_everything_that_was_due_meanwhile():
    with serving(Stalling(0.4)) as server:
        tally = work(order(server.target, rate=200, seconds=0.8))

    # In the first 0.3 s of the stall 60 requests were due, each of which is answered 0.1 s late at least.
    assert slow(tally) >= 55
    assert len(tally.counts["post"].latencies) == pytest.approx(160, abs=2)
    assert max(tally.counts["post"].latencies) >= 0.39
    assert not tally.errors


def test_a_closed_loop_waits_politely_and_sees_a_stall_once():
    with serving(Stalling(0.4)) as server:
        tally = work(order(server.target, seconds=0.8))

    assert 1 <= slow(tally) < 10
    assert tally.counts["post"].operations >= 10


def test_what_is_never_answered_is_an_error_and_as_late_as_it_was():
    released = threading.Event()

    def hang(request):
        released.wait(10)

    with serving(hang) as server:
        tally = work(order(server.target, rate=50, seconds=0.2, drain=0.3))
        released.set()

    latencies = tally.counts["post"].latencies
    assert tally.errors == {UNANSWERED: len(latencies)}
    assert len(latencies) == pytest.approx(10, abs=1)
    assert min(latencies) >= 0.3
    assert tally.counts["post"].operations == 0


def test_the_warm_up_counts_for_nothing():
    with serving(lambda _: POSTED) as server:
        tally = work(order(server.target, rate=100, warm_up=0.2, seconds=0.2))

        assert len(tally.counts["post"].latencies) == pytest.approx(20, abs=1)
        assert len(server.requests) == pytest.approx(40, abs=1)


def test_two_processes_share_a_rate_and_take_turns():
    with serving(lambda _: POSTED) as server:
        halves = [
            work(order(server.target, connections=2, total=4, first=first, rate=100, seconds=0.2))
            for first in (0, 2)
        ]

    assert [len(half.counts["post"].latencies) for half in halves] == pytest.approx([10, 10], abs=1)


def test_what_was_claimed_is_deleted_by_its_ids():
    def answer(request):
        return CLAIMED if request.startswith(b"POST") else DELETED

    with serving(answer) as server:
        tally = work(order(server.target, "claim-delete"))

        deletions = [request for request in server.requests if request.startswith(b"DELETE")]
        assert all(b"?ids=a,b HTTP/1.1\r\n" in request for request in deletions)
    count = tally.counts["claim + delete"]
    assert count.messages == 2 * count.operations > 0


def test_who_finds_nothing_rests_and_says_so():
    with serving(lambda _: DELETED) as server:
        tally = work(order(server.target, "claim-delete"))

    count = tally.counts["claim + delete"]
    assert count.empty == count.operations
    assert count.messages == 0
    assert count.operations < 40


def test_producers_and_consumers_work_at_once():
    def answer(request):
        if b"/claims" in request.partition(b"\r\n")[0]:
            return CLAIMED
        return POSTED if request.startswith(b"POST") else DELETED

    with serving(answer) as server:
        tally = work(order(server.target, "mixed", connections=4, total=4))

    assert tally.counts["post"].messages > 0
    assert tally.counts["claim + delete"].messages > 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", None])
def test_what_fails_is_an_error_and_tried_anew_on_another_connection(answer):
    answers = [answer]

    with serving(lambda _: answers.pop() if answers else POSTED) as server:
        tally = work(order(server.target))

    assert tally.errors.total() == 1
    assert tally.counts["post"].operations > 0


def test_a_server_that_closes_after_each_answer_is_no_error():
    closing_one = b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with serving(lambda _: closing_one) as server:
        tally = work(order(server.target))

    assert not tally.errors
    assert tally.counts["post"].operations > 1


def test_chunks_are_put_together():
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na;x=1\r\n0123456789\r\n0\r\n\r\n"
    )
    with serving(lambda _: chunked) as server, closing(Connection(server.target)) as connection:
        assert connection.ask(list_page()).body == b"abc0123456789"
        assert connection.ask(list_page()).body == b"abc0123456789"


def test_an_answer_that_is_not_expected_is_told():
    with (
        serving(lambda _: DELETED) as server,
        closing(Connection(server.target)) as connection,
        pytest.raises(Unexpected, match="204"),
    ):
        connection.ask(list_page())
