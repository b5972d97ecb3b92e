"""An event loop that gives each request a thread, so that an application which waits for a store needs no second one.

A server of asynchronous applications hands each request over as a coroutine. This loop runs it in a thread instead of
taking turns, and in another one when what it awaits is there; meanwhile it has none. Everything else that is asked of
the loop is done as usual, in the thread that runs it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from typing import Any

import structlog

_LAST = 5.0  # seconds that anything may be awaited when the process is to end
_GLANCE = 1.0  # seconds between two looks whether the parent is still there

_log = structlog.get_logger()


class _Turn:
    """A request that awaits something; called when that is there, in whichever thread it is that knows."""

    __slots__ = ("_loop", "request", "until")

    def __init__(self, loop: ThreadLoop, request: Coroutine[Any, Any, Any], until: float) -> None:
        self._loop = loop
        self.request = request
        self.until = until  # monotonic seconds

    def __call__(self, *_: object) -> None:
        self._loop.go_on(self)


class HangUp:
    """Notices that a client is gone, from the first time that somebody asks: `receive` is that of its request.

    The body has been read, or there is none.
    """

    def __init__(self, receive: Callable[[], Any]) -> None:
        self._receive = receive
        self._asked = self._gone = False

    def __call__(self) -> bool:
        """Tell whether the client is gone, as far as it is known."""
        if not self._asked:
            self._asked = True
            self._listen()
        return self._gone

    def _listen(self) -> None:
        awaited = next(iter(self._receive().__await__()))
        awaited.add_done_callback(_Call(self._hear))

    def _hear(self, told: Any) -> None:  # noqa: ANN401 - the server's kind of future
        self._gone = told.result()["type"] == "http.disconnect"
        if not self._gone:  # it was the body that is not there
            self._listen()


class _Call:
    """Something to be called in whichever thread it is that has news."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work = work

    def __call__(self, told: object) -> None:
        self._work(told)


class ThreadLoop(asyncio.SelectorEventLoop):
    """See the top of the file.

    `patience` is how many seconds anything may be awaited: whoever awaits it for longer gets TimeoutError.
    """

    def __init__(self, *, patience: float) -> None:
        super().__init__()
        self._patience = patience
        self._crew: ThreadPoolExecutor | None = None
        self._turns: dict[_Turn, None] = {}  # of those who await something
        self._tell_of_stop: Callable[[], object] = lambda: None
        self._close_all: Callable[[], object] = lambda: None

    def prepare(self, threads: int, *, stopping: Callable[[], object], ended: Callable[[], object]) -> None:
        """Say how many threads there may be, and what is to be called when the process is to end, and then does."""
        self._crew = ThreadPoolExecutor(threads, "request")
        self._tell_of_stop, self._close_all = stopping, ended

    def look_after(self, parent: int) -> None:
        """Give up what takes too long, and ask this process to end when its parent, of this id, is gone."""
        self.give_up()
        if os.getppid() == parent:
            self.call_later(_GLANCE, self.look_after, parent)
        else:
            signal.raise_signal(signal.SIGTERM)

    def give_up(self) -> None:
        """Have whoever awaits something for too long get TimeoutError."""
        now = time.monotonic()
        for turn in list(self._turns):
            if turn.until <= now:
                self.go_on(turn, TimeoutError())

    def go_on(self, turn: _Turn, error: BaseException | None = None) -> None:
        """Give a request a thread again, unless it has gone on already."""
        if self._crew is not None:
            with suppress(KeyError):  # unless somebody else was quicker
                del self._turns[turn]
                self._crew.submit(self._serve, turn.request, error)

    def add_signal_handler(  # type: ignore[override]
        self,
        sig: int,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - of any callback
    ) -> None:
        """Have a signal to end known to those who wait, and then to the server."""

        def told() -> None:
            self._tell_of_stop()
            self._patience = min(self._patience, _LAST)
            for turn in list(self._turns):
                turn.until = min(turn.until, time.monotonic() + _LAST)
            callback(*args)

        super().add_signal_handler(sig, told)

    def run_until_complete(self, future: Any) -> Any:  # noqa: ANN401 - asyncio's
        """Serve until the end."""
        try:
            return super().run_until_complete(future)
        finally:
            self._close_all()

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - of any callback
        context: Context | None = None,
    ) -> asyncio.Handle | None:
        """Give a request a thread, go on with one that has what it awaits, or do as usual."""
        if self._crew is not None and args and asyncio.iscoroutine(args[0]):
            self._crew.submit(self._serve, args[0])
            return None
        if isinstance(callback, _Turn | _Call):
            callback(*args)
            return None
        return super().call_soon_threadsafe(callback, *args, context=context)

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,  # noqa: ANN401 - of any callback
        context: Context | None = None,
    ) -> asyncio.Handle | None:
        """Go on with a request that has what it awaits, or do as usual."""
        if isinstance(callback, _Turn | _Call):
            callback(*args)
            return None
        return super().call_soon(callback, *args, context=context)

    def _serve(self, request: Coroutine[Any, Any, Any], error: BaseException | None = None) -> None:
        """Run a request until it awaits something, or to its end."""
        try:
            awaited = request.send(None) if error is None else request.throw(error)
        except StopIteration:
            return
        except BaseException:
            _log.exception("a request failed")
            return
        turn = _Turn(self, request, time.monotonic() + self._patience)
        self._turns[turn] = None
        awaited.add_done_callback(turn)
