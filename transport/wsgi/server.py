"""Serves the REST application with gunicorn's threads."""

from __future__ import annotations

import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from transport.janitor import run_janitor
from transport.server import GunicornServer
from transport.wsgi.app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transport.service import Service
    from transport.settings import Settings

_CONNECTIONS = 1000  # kept open by one worker at a time, beside those that it serves
_READ_TIMEOUT = 10  # seconds without a byte after which a client is given up
_LINGER = 5.0  # ms that a thread stays with a client that has its answer
_JANITOR_END = 5.0  # seconds that a step of the janitor's may take when the process ends


class RestServer(GunicornServer):
    """The REST service."""

    def __init__(self, settings: Settings) -> None:
        self._service: Service | None = None  # that of a worker
        super().__init__(settings)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return self.settings.api.address()

    def options(self) -> Mapping[str, object]:
        """Return what is special about this service."""
        api = self.settings.api
        threads = api.threads + api.waiters
        return {
            "bind": api.bind,
            "worker_class": PatientWorker,
            "workers": api.workers,
            "threads": threads,
            "worker_connections": _CONNECTIONS + threads,
            "graceful_timeout": api.graceful_timeout,
            "keepalive": api.keepalive,
        }

    @property
    def connections_setting(self) -> str:
        """The setting that says how many connections a worker may have, beside a thousand."""
        return "api.waiters"

    def application(self, service: Service) -> Callable[..., object]:
        """Build the application of a worker."""
        self._service = service
        if self.settings.in_memory:
            from transport.notifier import NotifierThread

            self.opened.enter_context(_JanitorThread(service, self.settings))
            self.opened.enter_context(NotifierThread(service))
        return _at_work(service, create_app(service))

    def let_go(self) -> None:
        """Answer those who wait for messages, for the process is to end."""
        if self._service is not None:
            self._service.waiting.close()


def _at_work(service: Service, app: Callable[..., object]) -> Callable[..., object]:
    """Let no more threads work at once than were asked for: those beyond are there to wait."""

    def bounded(environ: object, start_response: object) -> object:
        with service.waiting.busy():
            return app(environ, start_response)

    return bounded


class _JanitorThread:
    """A janitor for the store that no other process could clean."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._stop = threading.Event()
        arguments = (service, settings, self._stop)
        self._thread = threading.Thread(target=run_janitor, args=arguments, name="janitor", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_JANITOR_END)


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """A worker whose threads do not wait forever for clients that stop sending, and stay with those that go on."""

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - gunicorn's
        super().__init__(*args, **named)
        self._queued: set[Any] = set()  # connections that have no thread yet

    def enqueue_req(self, conn: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Bound every read from the connection, and hand it to a thread."""
        seconds = struct.pack("ll", _READ_TIMEOUT, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        self._queued.add(conn)
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:  # noqa: ANN401 - gunicorn has no types
        """Serve a request, and those that follow it at once: a third of what serving costs is to change threads."""
        self._queued.discard(conn)
        goes_on = super().handle(conn)
        while goes_on is True and self._follows(conn):
            goes_on = super().handle(conn)
        return goes_on

    def _follows(self, conn: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
        """Tell whether the client says something more within a moment in which nobody else needs the thread."""
        if self._queued or not self.alive:
            return False
        poll = select.poll()  # takes any descriptor, as select does not
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(_LINGER))

    def handle_exit(self, *signal: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Begin to end: whoever waits for messages waits no longer."""
        super().handle_exit(*signal)
        self.app.let_go()
