"""One Redis server, or the one that Sentinel names, and the connections to it.

redis-py finds the server, connects, and says who we are. What then goes over a
connection on every request goes there directly: its client spends more on a command
than everything else that a post takes, and its sockets let go of the interpreter's
lock four times for a command in place of twice, which threads pay for dearly.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import hiredis
from redis import Redis
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's, which is no OSError
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's, which is no OSError
    TryAgainError,
)

Command: TypeAlias = Sequence[Any]  # a word of the command each

#: What a refusal may be, by its first word.
_REFUSALS: Final[Mapping[str, Callable[[str], Exception]]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MOVED": MovedError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
}

_FRESH = 0.05  # seconds: no server ends and is back within that time
_CHUNK = 65536  # bytes read at once
_TIMES_UP = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)  # how the system says it
_UNFINISHED = object()  # in place of an answer that has not arrived as a whole


class Server:
    """Sends commands, from any number of threads; each wait lasts as long as `client` says.

    Nothing is connected before it is needed, and nothing is sent twice.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client  # for whatever is asked now and then
        self._pool = client.connection_pool
        self._idle: list[_Line] = []  # the one that was used last at the end
        self._closed = False

    def close(self) -> None:
        """Close every connection; those that are in use, when they no longer are."""
        self._closed = True
        self._hang_up()
        self.client.close()

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands at once over one connection and return the answers, of which some may be a ResponseError.

        Raises ConnectionError and TimeoutError of redis-py's if they did not all get an answer.
        """
        line = self._line()
        try:
            answers = line.ask(commands)
        except BaseException:
            line.close()
            self._hang_up()  # whatever happened to that connection, it happened to the others too
            raise
        if self._is_no_good(line, answers):
            line.close()
        else:
            self._idle.append(line)
            if self._closed:
                self._hang_up()
        return answers

    def _line(self) -> _Line:
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if line.is_fit():
                return line
            line.close()
        return _Line(self._pool.connection_class(**self._pool.connection_kwargs))

    def _hang_up(self) -> None:
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                break

    def _is_no_good(self, line: _Line, answers: Sequence[Any]) -> bool:
        """Tell whether the server at the other end is not, or not any more, the one that is written to."""
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            return True
        master = getattr(self._pool, "master_address", None)  # where Sentinel names it
        return master is not None and master != line.peer


class _Line:
    """A connection, for one thread at a time."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's, most of whose methods are untyped
        connection.connect()
        self._connection = connection
        self.peer = (connection.host, connection.port)
        self._socket: socket.socket = connection._sock  # redis-py itself has no name for it
        seconds = connection.socket_timeout
        if seconds is not None:
            # The system keeps the time. Python would ask whether something is there, and then read it.
            self._socket.settimeout(None)
            span = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        self._reader = hiredis.Reader(replyError=_refusal, notEnoughData=_UNFINISHED)
        self._used = time.monotonic()

    def close(self) -> None:
        """Close it."""
        self._connection.disconnect()

    def is_fit(self) -> bool:
        """Tell whether it may be used again: a server that has closed it, or says something unasked, has ended it."""
        if time.monotonic() - self._used < _FRESH:
            return True
        poll = select.poll()  # takes any descriptor, as select does not
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands and return their answers."""
        try:
            self._socket.sendall(b"".join([hiredis.pack_command(tuple(command)) for command in commands]))
            answers = [self._answer() for _ in commands]
        except _TIMES_UP as error:
            raise TimeoutError("The server did not answer in time") from error
        except OSError as error:
            raise ConnectionError(f"The connection broke: {error}") from error
        self._used = time.monotonic()
        return answers

    def _answer(self) -> Any:  # noqa: ANN401 - what Redis answers
        while (answer := self._reader.gets()) is _UNFINISHED:
            part = self._socket.recv(_CHUNK)
            if not part:
                raise ConnectionError("The server closed the connection")
            self._reader.feed(part)
        if isinstance(answer, hiredis.PushNotification):  # it tells us something beside that
            return self._answer()
        if isinstance(answer, ConnectionError):
            raise answer
        return answer


def _refusal(text: str) -> Exception:
    word, _, rest = text.partition(" ")
    kind = _REFUSALS.get(word)
    return ResponseError(text) if kind is None else kind(rest)
