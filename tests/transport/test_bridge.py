"""What comes by ASGI reaches a WSGI application in a thread of its own, or is refused before."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest

from queues.errors import HermodError
from tests.acceptance.processes import wait_until
from transport.settings import ApiSettings, Settings
from transport.wsgi import bridge
from transport.wsgi.bridge import Bridge
from transport.wsgi.threads import HangUp, ThreadLoop

MOST = 10  # bytes of a body


class Conversation:
    """A request as a server of ASGI applications makes it, and what it was answered."""

    def __init__(self, *messages: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self.messages = [*messages]
        self.sent: list[Mapping[str, Any]] = []
        self.seen: dict[str, Any] = {}
        self.scope = {
            "method": "POST",
            "scheme": "http",
            "http_version": "1.1",
            "raw_path": b"/v2/queues/a%2Fb",
            "query_string": b"x=%2F",
            "server": ("127.0.0.1", 8888),
            "client": ("127.0.0.1", 50000),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }

    def app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.seen = {**environ, "body": environ["wsgi.input"].read()}
        start_response("200 OK", [("X-Thread", threading.current_thread().name)])
        return [b"o", b"k"]

    async def receive(self) -> Mapping[str, Any]:
        if not self.messages:
            raise TimeoutError
        return self.messages.pop(0)

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    def status(self, *, patience: float = 60.0) -> int:
        asyncio.run(self._held(Bridge(self.app, most=MOST, patience=patience)))
        return int(self.sent[0]["status"])

    async def _held(self, made: Bridge) -> None:
        await made(self.scope, self.receive, self.send)


def piece(body: bytes, *, more: bool) -> Mapping[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_an_application_sees_what_was_sent():
    conversation = Conversation(
        piece(b"ab", more=True),
        piece(b"c", more=False),
        headers={"content-length": "3", "x-project-id": "é", "x_project_id": "other", "content-type": "a/b"},
    )
    assert conversation.status() == 200
    seen = conversation.seen
    assert seen["body"] == b"abc"
    assert seen["RAW_URI"] == "/v2/queues/a%2Fb"
    assert seen["PATH_INFO"] == "/v2/queues/a/b"
    assert seen["HTTP_X_PROJECT_ID"].encode("latin-1").decode() == "é"
    assert (seen["CONTENT_LENGTH"], seen["CONTENT_TYPE"]) == ("3", "a/b")
    assert conversation.sent[1]["body"] == b"ok"


def test_a_body_that_says_that_it_is_too_long_is_not_read():
    conversation = Conversation(piece(b"x" * 11, more=False), headers={"content-length": "11"})
    assert conversation.status() == 200
    assert conversation.seen["body"] == b""
    assert conversation.messages


def test_a_body_that_shows_that_it_is_too_long_is_read_no_further():
    pieces = [piece(b"x" * 6, more=True) for _ in range(100)]
    conversation = Conversation(*pieces, headers={"transfer-encoding": "chunked"})
    assert conversation.status() == 200
    assert conversation.seen["body"] == b"x" * 12
    assert len(conversation.messages) == 98


@pytest.mark.parametrize(
    ("messages", "headers", "status"),
    [
        ([piece(b"a", more=True)], {"content-length": "3"}, 408),
        ([piece(b"a", more=True), {"type": "http.disconnect"}], {"content-length": "3"}, 400),
        ([piece(b"{}", more=True), {"type": "http.disconnect"}], {"transfer-encoding": "chunked"}, 400),
        ([piece(b"a", more=False)], {"content-length": "3"}, 400),
        ([], {"content-length": "3", "transfer-encoding": "chunked"}, 400),
        ([], {"content-length": "3,3"}, 400),
        ([], {"transfer-encoding": "gzip, chunked"}, 400),
        ([], {"host": "a,b"}, 400),
        ([], {"expect": "wonders"}, 400),
        ([], {"x-long": "x" * 8190}, 431),
    ],
)
def test_what_is_no_whole_request_never_reaches_the_application(messages, headers, status):
    conversation = Conversation(*messages, headers=headers)
    assert conversation.status() == status
    assert (b"connection", b"close") in conversation.sent[0]["headers"]
    assert conversation.seen == {}


def test_slow_bodies_have_so_much_room(monkeypatch):
    monkeypatch.setattr(bridge, "_MOST_HELD", 3)
    pieces = [piece(b"ab", more=True), piece(b"cd", more=True)]
    assert Conversation(*pieces, headers={"content-length": "9"}).status() == 503
    whole = Conversation(piece(b"abcdefghi", more=False), headers={"content-length": "9"})
    assert whole.status() == 200


def test_a_body_has_so_many_seconds():
    conversation = Conversation(
        piece(b"a", more=True), piece(b"b", more=True), headers={"content-length": "9"}
    )
    assert conversation.status(patience=-1.0) == 408
    assert len(conversation.messages) == 1


class Awaited:
    """Something that a server says later, in a thread of its own."""

    def __init__(self, loop: ThreadLoop) -> None:
        self._loop = loop
        self._result: Any = None
        self.callback: Any = None

    def __await__(self) -> Generator[Awaited, None, Any]:
        yield self
        return self._result

    def add_done_callback(self, callback: Any) -> None:
        self.callback = callback

    def result(self) -> Any:
        return self._result

    def say(self, result: Any) -> None:
        self._result = result
        self._loop.call_soon_threadsafe(self.callback, self)


@pytest.fixture
def loop() -> Iterator[ThreadLoop]:
    with closing(ThreadLoop(patience=60.0)) as made:
        made.prepare(1, stopping=lambda: None, ended=lambda: None)
        yield made


def start(loop: ThreadLoop, awaited: Awaited, heard: list[Any]) -> None:
    """Hand a request over, as a server does."""

    async def request() -> None:
        try:
            heard.append((await awaited, threading.current_thread().name))
        except TimeoutError:
            heard.append("too late")

    loop.call_soon_threadsafe(lambda coroutine: None, request())


def test_who_awaits_something_has_no_thread(loop):
    heard: list[Any] = []
    first, second = Awaited(loop), Awaited(loop)
    start(loop, first, heard)
    start(loop, second, heard)
    wait_until(lambda: first.callback and second.callback, "both wait")
    second.say("b")
    wait_until(lambda: heard, "one goes on")
    first.say("a")
    wait_until(lambda: len(heard) == 2, "the other goes on")
    assert [what for what, _ in heard] == ["b", "a"]
    assert {name.partition("_")[0] for _, name in heard} == {"request"}


def test_what_does_not_come_is_given_up():
    with closing(ThreadLoop(patience=0.0)) as loop:
        loop.prepare(1, stopping=lambda: None, ended=lambda: None)
        heard: list[Any] = []
        awaited = Awaited(loop)
        start(loop, awaited, heard)
        wait_until(lambda: awaited.callback, "it waits")
        wait_until(lambda: loop.give_up() or heard, "it is given up")  # type: ignore[func-returns-value]
        assert heard == ["too late"]
        awaited.say("after all")  # nobody is harmed


def test_who_hangs_up_is_noticed_behind_a_body_that_is_not_there(loop):
    said: list[Awaited] = []

    def receive() -> Awaited:
        said.append(Awaited(loop))
        return said[-1]

    gone = HangUp(receive)
    assert said == []
    assert not gone()
    said[0].say({"type": "http.request", "body": b""})
    assert not gone()
    said[1].say({"type": "http.disconnect"})
    assert gone()
    assert len(said) == 2


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "granian", None)
    monkeypatch.delitem(sys.modules, "transport.wsgi.granian", raising=False)
    with pytest.raises(HermodError, match=r"pip install 'hermod\[granian\]'"):
        __import__("transport.wsgi.granian")


def test_the_server_is_a_setting():
    assert Settings().api.server == "gunicorn"
    assert ApiSettings.model_validate({"server": "Granian"}).server == "granian"
