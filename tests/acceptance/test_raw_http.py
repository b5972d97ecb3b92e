"""Bytes on a socket that no HTTP library would send: a 4xx or a closed connection, and the service goes on (P12)."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance import processes
from tests.acceptance.fuzzing import examples
from tests.acceptance.processes import ANSWER, CLIENT, PROJECT, Hermod

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")

HOST = b"Host: localhost\r\n"
IDENTITY = HOST + f"Client-ID: {CLIENT}\r\nX-Project-ID: {PROJECT}\r\n".encode()
POST = b"POST /v2/queues/q/messages HTTP/1.1\r\n" + IDENTITY
BODY = b'{"messages": [{"body": 1}]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, BODY[:5], len(BODY) - 5, BODY[5:])
#: What must never be taken for a request: it would declare a queue.
SMUGGLED = b"PUT /v2/queues/smuggled HTTP/1.1\r\n" + IDENTITY + b"\r\n"


THREADS = 2  # as many requests as the service handles at a time


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hermod]:
    made = Hermod(
        folder=tmp_path_factory.mktemp("raw"),
        command="api",
        arguments=["--workers", "1", "--threads", str(THREADS)],
    ).start()
    try:
        yield made
    finally:
        made.kill()


def talk(service: Hermod, data: bytes) -> list[int]:
    """Send bytes and then the end of the stream; return the status of each answer until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=ANSWER) as connection:
        # A server that has seen enough closes: what it said until then may be there all the same.
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return [int(status) for status in _STATUS.findall(received)]


def refused(service: Hermod, data: bytes) -> None:
    """Send what is no proper request; nothing may come of it."""
    statuses = talk(service, data)
    assert all(400 <= status < 500 for status in statuses), statuses
    with service.client() as client:
        before = client.request("GET", "/v2/ping")
        assert before.status == 204
        assert client.request("HEAD", "/v2/queues/smuggled").status == 404


def test_proper_requests_are_served(service: Hermod) -> None:
    assert talk(service, POST + LENGTH + b"\r\n" + BODY) == [201]
    assert talk(service, POST + CHUNKED + b"\r\n" + CHUNKS) == [201]
    assert talk(service, POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"5\r\n", b"5;a=b\r\n", 1)) == [201]
    trailer = CHUNKS[:-2] + b"X-Checksum: 1\r\n\r\n"
    assert talk(service, POST + CHUNKED + b"\r\n" + trailer) == [201]
    assert talk(service, (POST + LENGTH + b"\r\n" + BODY) * 3) == [201, 201, 201]
    ping = b"GET /v2/ping HTTP/1.%d\r\n" + IDENTITY + b"\r\n"
    assert talk(service, ping % 1) == [204]
    assert talk(service, ping % 0) == [204]


def test_the_body_of_a_get_is_no_request(service: Hermod) -> None:
    head = b"GET /v2/queues/q HTTP/1.1\r\n" + IDENTITY
    assert talk(service, head + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED) == [200]
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    assert talk(service, head + CHUNKED + b"\r\n" + chunk) == [200]
    refused(service, b"")


def test_an_underscore_does_not_make_another_header(service: Hermod) -> None:
    foreign = IDENTITY.replace(PROJECT.encode(), b"stranger")
    post = b"POST /v2/queues/private/messages HTTP/1.1\r\n" + foreign + LENGTH + b"\r\n" + BODY
    assert talk(service, post) == [201]
    sneaky = b"X_Project_ID: stranger\r\nX_PROJECT-ID: stranger\r\n"
    get = b"HEAD /v2/queues/private HTTP/1.1\r\n"
    for headers in (sneaky + IDENTITY, IDENTITY + sneaky):
        assert talk(service, get + headers + b"\r\n") == [404]
    assert talk(service, get + sneaky + IDENTITY.partition(b"X-Project")[0] + b"\r\n") == [400]


HEADS = {
    "overlong header": b"X-Long: " + b"x" * 8190 + b"\r\n",
    "endless header": b"X-Long: " + b"x" * 2_000_000,
    "overlong header name": b"x" * 9000 + b": 1\r\n",
    "overlong client id": b"Client-ID: " + b"a" * 9000 + b"\r\n",
    "101 headers": b"".join(b"X-%d: 1\r\n" % n for n in range(101)),
    "20000 headers": b"X: 1\r\n" * 20_000,
    "no colon": b"nonsense\r\n",
    "no name": b": 1\r\n",
    "blank before the colon": b"Transfer-Encoding : chunked\r\n",
    "folded line": b"X-Folded: a\r\n b\r\n",
    "NUL": b"X-Nul: a\x00b\r\n",
    "bare CR": b"X-Cr: a\rX-Project-ID: stranger\r\n",
    "bare LF": b"X-Lf: a\nX-Project-ID: stranger\r\n",
    "name of other bytes": b"X-\xff: 1\r\n",
    "two hosts": HOST,
    "unknown expectation": b"Expect: the-unexpected\r\n",
    "same length twice": LENGTH + LENGTH,
    "two lengths": LENGTH + b"Content-Length: 3\r\n",
    "two lengths in one": b"Content-Length: 27, 27\r\n",
    "negative length": b"Content-Length: -1\r\n",
    "length of plus": b"Content-Length: +27\r\n",
    "length of words": b"Content-Length: many\r\n",
    "length in hex": b"Content-Length: 0x1b\r\n",
    "length and a half": b"Content-Length: 27.5\r\n",
    "length with underscore": b"Content-Length: 2_7\r\n",
    "length in other digits": "Content-Length: \u0662\u0667\r\n".encode(),
    "length superscript": b"Content-Length: \xb2\xb7\r\n",
    "endless length": b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "huge length": b"Content-Length: " + b"9" * 30 + b"\r\n",
    "length beyond what is sent": b"Content-Length: 1000\r\n",
    "length beyond the limit": b"Content-Length: 262145\r\n",
    "empty length": b"Content-Length: \r\n",
    "length then chunked": LENGTH + CHUNKED,
    "chunked then length": CHUNKED + LENGTH,
    "chunked twice": CHUNKED + CHUNKED,
    "chunked twice in one": b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked first": b"Transfer-Encoding: chunked, gzip\r\n",
    "chunked before identity": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\n" + LENGTH,
    "gzip": b"Transfer-Encoding: gzip\r\n" + LENGTH,
    "chunked with length of zero": CHUNKED + b"Content-Length: 0\r\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_broken_head_is_refused(service: Hermod, head: str) -> None:
    for body in (BODY, b"0\r\n\r\n" + SMUGGLED, SMUGGLED):
        refused(service, POST + HEADS[head] + b"\r\n" + body)


CHUNKINGS = {
    "nothing": b"",
    "end in the size": b"1",
    "end behind the size": b"1b\r\n",
    "end in a chunk": CHUNKS[:6],
    "end behind a chunk": CHUNKS[:10],
    "end behind the last chunk": CHUNKS[:-2],
    "end before the last line": CHUNKS[:-1],
    "no size": b"\r\n" + CHUNKS,
    "size of words": b"five\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative size": b"-5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "size with sign": b"+1b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "size of hex with prefix": b"0x1b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "size with underscore": b"1_b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "huge size": b"f" * 40 + b"\r\n" + BODY,
    "endless size": b"0" * 20_000,
    "size too small": b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF": CHUNKS.replace(b"\r\n", b"\n"),
    "extension with LF": b"1b;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "trailer that is none": CHUNKS[:-2] + b"nonsense\r\n\r\n",
    "trailer of a length": CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n",
    "too many trailers": CHUNKS[:-2] + b"X: 1\r\n" * 1000 + b"\r\n",
    "more than the limit": b"100000\r\n" + b" " * 0x100000 + b"\r\n0\r\n\r\n",
    "no JSON": b"1\r\n{\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_broken_chunks_are_refused(service: Hermod, chunking: str) -> None:
    refused(service, POST + CHUNKED + b"\r\n" + CHUNKINGS[chunking])


TARGETS = [
    *[
        b"//",
        b"///v2/queues",
        b"/v2//queues",
        b"/v2/queues//",
        b"/v2/queues/q//messages",
        b"/v2/../v2/queues",
    ],
    *[b"/..", b"/../../etc/passwd", b"/v2/queues/../ping", b"/v2/./ping", b"/v2/queues/./"],
    *[b"/%", b"/v2/queues/%", b"/v2/queues/%zz", b"/v2/queues/%0", b"/v2/queues/%00", b"/v2/queues/q%00"],
    *[
        b"/v2/queues/q%0d%0aX-Evil:1",
        b"/v2/queues/%2f",
        b"/v2%2fqueues",
        b"/v2/queues/q%2Fmessages",
        b"/v2/queues/%ff",
    ],
    *[b"/v2/queues/%c3%28", b"/v2/queues/%ed%a0%80", b"/v2/queues/%e2%82", b"/v2/queues/%F4%90%80%80"],
    *[
        b"/v2/queues/\xc3\xa9",
        b"/v2/queues/\xff",
        b"/v2/que\tues",
        b"/v2/queues/a b",
        b"/v2/queues/\x00",
        b"/v2\\queues",
    ],
    *[
        b"",
        b"*",
        b"v2/ping",
        b"?",
        b"#",
        b"/#/v2/ping",
        b"/v2/ping#x",
        b"http://",
        b"http:///v2/ping",
        b"https://[::1/v2",
    ],
    *[
        b"http://evil.example/v2/queues/smuggled/x",
        b"evil.example:80",
        b"//evil.example/v2/ping",
        b"/v2/queues/" + b"a" * 8000,
    ],
    *[
        b"/" + b"a" * 9000,
        b"/v2/queues?" + b"limit=1&" * 2000,
        b"/" + b"/" * 8000,
        b"/v2/ping;x",
        b"/v2/ping/..;/queues",
    ],
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: repr(target)[2:40])
def test_a_broken_path_is_refused(service: Hermod, target: bytes) -> None:
    for method in (b"GET", b"PUT", b"DELETE"):
        statuses = talk(service, b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, IDENTITY))
        # What names an existing path after all may be served.
        assert all(status in (200, 204, 300) or 400 <= status < 500 for status in statuses), statuses
    refused(service, b"")


STARTS = {
    "nothing": b"",
    "empty lines": b"\r\n" * 1000,
    "no version": b"GET /v2/ping\r\n\r\n",
    "version 0.9": b"GET /v2/ping HTTP/0.9\r\n" + IDENTITY + b"\r\n",
    "version 1.2": b"PUT /v2/queues/q/ HTTP/1.2\r\n" + IDENTITY + b"\r\n",
    "version 2": b"GET /v2/ping HTTP/2.0\r\n" + IDENTITY + b"\r\n",
    "version of words": b"GET /v2/ping HTTP/one\r\n" + IDENTITY + b"\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "upgrade to HTTP/2": b"PUT /v2/queues/ HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n" + IDENTITY + b"\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\x00" * 160,
    "proxy line": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + SMUGGLED,
    "proxy line in binary": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x01" * 12 + SMUGGLED,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": b"\x00" * 100_000,
    "no end": b"a" * 100_000,
    "small letters": b"get /v2/ping HTTP/1.1\r\n" + IDENTITY + b"\r\n",
    "odd method": b"G@T /v2/ping HTTP/1.1\r\n" + IDENTITY + b"\r\n",
    "long method": b"G" * 9000 + b" /v2/ping HTTP/1.1\r\n" + IDENTITY + b"\r\n",
    "connect": b"CONNECT smuggled:80 HTTP/1.1\r\n" + IDENTITY + b"\r\n" + SMUGGLED,
    "trace": b"TRACE /v2/ping HTTP/1.1\r\n" + IDENTITY + b"\r\n",
    "blank in front": b" PUT /v2/queues/smuggled HTTP/1.1\r\n" + IDENTITY + b"\r\n",
    "end in the head": POST,
    "end in a header": POST + b"Content-Le",
}


@pytest.mark.parametrize("start", STARTS)
def test_what_is_no_request_is_refused(service: Hermod, start: str) -> None:
    refused(service, STARTS[start])


def test_who_stops_sending_does_not_stop_the_service(
    service: Hermod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ANSWER", 20.0)
    in_the_head, in_the_body = POST, POST + LENGTH + b"\r\n" + BODY[:5]
    with contextlib.ExitStack() as stack:
        for sent in (in_the_head, in_the_body)[:THREADS]:
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), ANSWER))
            silent.sendall(sent)
        with service.client() as client:
            assert client.request("GET", "/v2/ping").status == 204


PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"\t",
    b"\xff",
    b"0\r\n\r\n",
    b"chunked",
    b"HTTP/1.1",
    b"%",
    b"?",
    b",",
]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Draw a proper request with a few bytes changed."""
    data = draw(
        st.sampled_from(
            [
                POST + LENGTH + b"\r\n" + BODY,
                POST + CHUNKED + b"\r\n" + CHUNKS,
                b"GET /v2/queues/q/messages?limit=1&echo=true HTTP/1.1\r\n" + IDENTITY + b"\r\n",
            ]
        )
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
        data = data[:at] + piece + data[at + draw(st.integers(0, 2)) :]
    return data


def test_no_bytes_are_a_server_error(service: Hermod) -> None:
    @examples(200)
    @given(broken())
    def run(data: bytes) -> None:
        statuses = talk(service, data)
        # 501 is the right answer to a transfer coding that nobody knows.
        assert all(status < 500 or status == 501 for status in statuses), statuses

    run()
    refused(service, b"")
