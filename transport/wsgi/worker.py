"""A worker whose threads serve requests, and wait for no client.

A request gets a thread when all of it has come, and leaves it when it is answered; what comes
slowly, and what is read slowly, the main thread looks after, which waits for everybody at once.
Whoever takes too long is let go, and those who take longest when there is no room for others.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from transport.wsgi.connection import Connection, PatientSocket

if TYPE_CHECKING:
    from collections.abc import Callable

_YIELD = 0.001  # seconds that a new connection is left to workers that have fewer
_HEAD = 10.0  # seconds until the first byte of a request, and again until its head is there
_BODY = 60.0  # seconds until all of its body is there
_ANSWER = 60.0  # seconds until an answer is read
_GOODBYE = 2.0  # seconds until a client has closed its end, too
_LAST = 2.0  # seconds that clients have to begin, or go on, when the process ends
_LAST_BODY = 5.0  # seconds that they have to finish a body then
_MOST_HELD = 64 * 2**20  # bytes of what comes, or is read, slowly
_UNREAD = object()  # what a thread says of a request that is not all there


class Ward:
    """Connections that are waited for in one way, the oldest first, and each for so long at most."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: dict[Connection, float] = {}  # monotonic seconds

    def __iter__(self) -> Iterator[Connection]:
        """Yield them, the oldest first; they may leave meanwhile."""
        while self.since:
            yield next(iter(self.since))

    def overdue(self, now: float) -> Iterator[Connection]:
        """Yield those that take too long."""
        for connection in self:
            if self.since[connection] + self.seconds > now:
                return
            yield connection


class _Settled:
    """Options of gunicorn's, each looked up once: it asks for two dozen of them in each request."""

    def __init__(self, options: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        self._options = options

    def __getattr__(self, name: str) -> object:
        value = getattr(self._options, name)
        setattr(self, name, value)
        return value


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """See the top of the file.

    `app.most_body` is how many bytes a body may have, `app.balance` a `transport.wsgi.balance.Balance`.
    """

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(*args, **named)
        self.cfg: Any = _Settled(self.cfg)
        self._queued: set[Connection] = set()  # connections that have no thread yet
        self._held = 0  # bytes that are kept for slow clients
        self._stopping: float | None = None  # monotonic seconds; since when
        self._silent = Ward(_HEAD)  # nothing has come yet
        self._heads = Ward(_HEAD)
        self._bodies = Ward(_BODY)
        self._answers = Ward(_ANSWER)
        self._parting = Ward(_GOODBYE)

    # --- in threads

    def handle(self, conn: Connection) -> object:
        """Serve a request, and those that follow it at once: a third of what serving costs is to change threads."""
        self._queued.discard(conn)
        goes_on = self._serve(conn)
        while goes_on is True and self._follows(conn):
            goes_on = self._serve(conn)
        return goes_on

    def _serve(self, conn: Connection) -> object:
        try:
            if not conn.receive(self.app.most_body):
                return _UNREAD
            goes_on = super().handle(conn)
            conn.sock.flush()
        except OSError:
            return False
        return goes_on

    def _follows(self, conn: Connection) -> bool:
        """Tell whether the client says something more within a moment in which nobody else needs the thread."""
        if self._queued or not self.alive or conn.sock.unsent is not None:
            return False
        return conn.follows()

    # --- in the main thread

    @property
    def nr_conns(self) -> int:
        """How many connections there are."""
        return self._connections

    @nr_conns.setter
    def nr_conns(self, connections: int) -> None:
        self._connections = connections
        if self.alive and self.pid == os.getpid():  # gunicorn makes workers before it forks them
            self.app.balance.note(self.age, connections)

    def accept(self, listener: Any) -> None:  # noqa: ANN401 - gunicorn's
        """Accept a connection, unless another worker that has fewer does, and wait until it says something."""
        if self.app.balance.is_fuller(self.nr_conns):
            time.sleep(_YIELD)
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock = PatientSocket(client.family, client.type, client.proto, fileno=client.detach())
        self.nr_conns += 1
        self._wait(Connection(self.cfg, sock, address, listener.getsockname()), self._silent)

    def enqueue_req(self, conn: Connection) -> None:
        """Hand a connection to a thread."""
        self._queued.add(conn)
        super().enqueue_req(conn)

    def finish_request(self, conn: Connection, future: Any) -> None:  # noqa: ANN401 - gunicorn's
        """See to a connection that a thread is done with."""
        try:
            goes_on = not future.cancelled() and future.result()
            if goes_on is _UNREAD:
                self._held += conn.held
                self._wait(conn, self._ward_of(conn))
            elif conn.sock.unsent is not None:
                conn.goes_on = bool(goes_on)
                self._held += conn.held
                self._wait(conn, self._answers)
            else:
                self._done(conn, goes_on=bool(goes_on))
        except Exception:
            self._close(conn)

    def murder_pending(self) -> None:
        """Let those go that take too long, and some of them sooner if others need the room."""
        now = time.monotonic()
        for ward in self._wards():
            for connection in ward.overdue(now):
                self._drop(connection, ward)
        self._make_room()
        if self.alive:
            return
        self._stopping = self._stopping or now
        for ward, last in ((self._silent, _LAST), (self._heads, _LAST), (self._bodies, _LAST_BODY)):
            for connection in ward if now - self._stopping >= last else ():
                self._drop(connection, ward)

    def run(self) -> None:
        """Serve until told to stop."""
        self.nr_conns = 0  # which was said before there was anybody to hear it
        super().run()

    def handle_quit(self, *signal: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """End at once."""
        self.app.balance.leave(self.age)
        super().handle_quit(*signal)

    def handle_exit(self, *signal: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Begin to end: whoever waits for messages waits no longer."""
        super().handle_exit(*signal)
        self.app.balance.leave(self.age)
        self.app.let_go()

    def _wards(self) -> tuple[Ward, ...]:
        """Return where connections are waited for, those first that are worth least."""
        return (self._parting, self._silent, self._heads, self._bodies, self._answers)

    def _make_room(self) -> None:
        for ward in self._wards():
            for connection in ward:
                if self.nr_conns < self.worker_connections and self._held <= _MOST_HELD:
                    return
                self._drop(connection, ward)
        while self.nr_conns >= self.worker_connections and self.keepalived_conns:
            idle = self.keepalived_conns.popleft()
            self.poller.unregister(idle.sock)
            self._close(idle)

    def _ward_of(self, conn: Connection) -> Ward:
        """Return where the rest of a request is waited for."""
        return self._bodies if conn.arrival is not None and conn.arrival.in_body else self._heads

    def _wait(self, conn: Connection, ward: Ward) -> None:
        what: Callable[[Connection, Ward, object], None] = self._hear
        event = selectors.EVENT_READ
        if ward is self._answers:
            what, event = self._send_on, selectors.EVENT_WRITE
        elif ward is self._parting:
            what = self._see_off
        self.poller.register(conn.sock, event, partial(what, conn, ward))
        ward.since[conn] = time.monotonic()

    def _leave(self, conn: Connection, ward: Ward) -> None:
        del ward.since[conn]
        self.poller.unregister(conn.sock)

    def _hear(self, conn: Connection, ward: Ward, _sock: object) -> None:
        """Take what a client sends; it gets a thread when that is a request."""
        if ward is self._silent:  # mostly it is one at once
            self._leave(conn, ward)
            self.enqueue_req(conn)
            return
        before = conn.held
        try:
            conn.receive_more()
        except OSError:
            self._drop(conn, ward)
            return
        self._held += conn.held - before
        if conn.arrival is not None and conn.arrival.whole:
            self._held -= conn.held
            self._leave(conn, ward)
            self.enqueue_req(conn)
        elif self._ward_of(conn) is not ward:
            self._leave(conn, ward)
            self._wait(conn, self._bodies)

    def _send_on(self, conn: Connection, ward: Ward, _sock: object) -> None:
        """Send more of an answer that was not read at once."""
        before = conn.held
        try:
            done = conn.sock.send_on()
        except OSError:
            self._drop(conn, ward)
            return
        self._held += conn.held - before
        if done:
            self._leave(conn, ward)
            self._done(conn, goes_on=conn.goes_on)

    def _see_off(self, conn: Connection, ward: Ward, _sock: object) -> None:
        """Read what is in the way of the last answer: it would be lost if the connection were closed before."""
        with suppress(BlockingIOError):
            try:
                if conn.sock.recv(65536, socket.MSG_DONTWAIT):
                    return
            except ConnectionError:
                pass
            self._drop(conn, ward)

    def _done(self, conn: Connection, *, goes_on: bool) -> None:
        """Wait for the next request, or for the client to close its end."""
        if not goes_on:
            try:
                conn.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close(conn)
            else:
                self._wait(conn, self._parting)
        elif conn.read_ahead:
            self.enqueue_req(conn)
        else:
            conn.set_timeout()
            if not self.alive:
                conn.timeout = min(conn.timeout, time.monotonic() + _LAST)
            self.keepalived_conns.append(conn)
            self.poller.register(
                conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn)
            )

    def _drop(self, conn: Connection, ward: Ward) -> None:
        self._leave(conn, ward)
        if ward is not self._silent and ward is not self._parting:
            self._held -= conn.held
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()
