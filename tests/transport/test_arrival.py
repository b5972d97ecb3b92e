"""When a request is all there, so that a thread may begin with it."""

from __future__ import annotations

import pytest

from transport.wsgi.arrival import Arrival, is_whole

MOST = 1000
HEAD = b"POST /v2/queues/q/messages HTTP/1.1\r\nHost: localhost\r\n"
BODY = b"0123456789"
LENGTH = b"Content-Length: 10\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE = {
    "no body": HEAD + b"\r\n",
    "a body": HEAD + LENGTH + BODY,
    "small letters": HEAD + LENGTH.lower() + BODY,
    "an empty body": HEAD + b"Content-Length: 0\r\n\r\n",
    "chunks": HEAD + CHUNKED + b"4\r\n0123\r\n6;a=b\r\n456789\r\n0\r\n\r\n",
    "chunks with a trailer": HEAD + CHUNKED + b"A\r\n0123456789\r\n0\r\nX: 1\r\n\r\n",
    "no chunks": HEAD + CHUNKED + b"0\r\n\r\n",
}


def arrived(data: bytes, step: int) -> int:
    """How many bytes there were when all of a request was there, if they come so many at a time."""
    arrival = Arrival(data[:step], MOST)
    seen = step
    while not arrival.whole:
        assert seen < len(data), "it never is"
        arrival.add(data[seen : seen + step])
        seen += step
    assert arrival.data == data[:seen]
    return seen


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_request_is_there_with_its_last_byte_however_it_comes(kind: str, step: int) -> None:
    data = WHOLE[kind]
    assert len(data) <= arrived(data, step) < len(data) + step


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if "chunks" not in kind])
def test_what_comes_at_once_needs_no_closer_look(kind: str) -> None:
    data = WHOLE[kind]
    assert is_whole(data)
    assert is_whole(data + b"GET / HTTP/1.1\r\n")
    assert not is_whole(data[:-1])


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if "chunks" in kind])
def test_chunks_need_a_closer_look(kind: str) -> None:
    assert not is_whole(WHOLE[kind])


HOPELESS = {
    "a bare line feed": HEAD + b"X: 1\n",
    "a line without an end": HEAD + b"X: " + b"x" * 8200,
    "a head without an end": HEAD + b"X: 1\r\n" * 150_000,
    "a body that is too large": HEAD + b"Content-Length: 1001\r\n\r\n",
    "no chunk": HEAD + CHUNKED + b"five\r\n",
    "a size without an end": HEAD + CHUNKED + b"0" * 10_000,
    "too many chunks": HEAD + CHUNKED + b"1\r\nx\r\n" * 200_000,
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_cannot_become_a_request_is_not_waited_for(kind: str) -> None:
    assert Arrival(HOPELESS[kind], MOST).whole


def test_what_ends_in_the_middle_is_not_waited_for() -> None:
    arrival = Arrival(HEAD, MOST)
    assert not arrival.whole
    arrival.end()
    assert arrival.whole


EXPECTING = HEAD + b"Expect: 100-Continue\r\n" + LENGTH


@pytest.mark.parametrize("begun", [0, 3], ids=["before the body", "in the body"])
def test_who_waits_to_be_told_to_go_on_is_told_once(begun: int) -> None:
    arrival = Arrival(EXPECTING + BODY[:begun], MOST)
    assert arrival.take_expectation()
    assert arrival.data == HEAD + LENGTH + BODY[:begun]
    assert not arrival.take_expectation()
    arrival.add(BODY[begun:9])
    assert not arrival.whole
    arrival.add(BODY[9:])
    assert arrival.whole


@pytest.mark.parametrize(
    "data",
    [
        EXPECTING.replace(b"1.1", b"1.0"),
        EXPECTING[:-4],
        HEAD + LENGTH,
        EXPECTING.replace(b"10\r", b"9999\r"),
        EXPECTING.replace(b"100-C", b"the c"),
    ],
    ids=["HTTP 1.0", "no head yet", "waits for nothing", "too large", "something else"],
)
def test_others_are_told_nothing(data: bytes) -> None:
    assert not Arrival(data, MOST).take_expectation()
