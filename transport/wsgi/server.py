"""Serves the REST application with gunicorn's threads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from queues.errors import Overloaded
from transport.janitor import run_janitor
from transport.server import GunicornServer
from transport.wsgi.app import create_app
from transport.wsgi.balance import Balance
from transport.wsgi.gate import OPEN, REFUSAL
from transport.wsgi.worker import PatientWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from transport.service import Service
    from transport.settings import Settings

_CONNECTIONS = 1000  # kept open by one worker at a time, beside those that it serves
_SPARE = 16  # threads that refuse what is too much, and show what waits for no store
_SILENCE = 10.0  # seconds between two entries of the log that there is too much
_JANITOR_END = 5.0  # seconds that a step of the janitor's may take when the process ends
_DOCUMENTS = frozenset((*OPEN, "/v2/"))  # what waits for no store

_log = structlog.get_logger()


class RestServer(GunicornServer):
    """The REST service."""

    def __init__(self, settings: Settings) -> None:
        self._service: Service | None = None  # that of a worker
        self.balance = Balance(settings.api.workers)
        super().__init__(settings)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        return self.settings.api.address()

    def options(self) -> Mapping[str, object]:
        """Return what is special about this service."""
        api = self.settings.api
        # Whoever stands in line has a thread already, which costs nothing before there is a line.
        threads = api.threads + api.waiters + api.backlog + _SPARE
        return {
            "bind": api.bind,
            "worker_class": PatientWorker,
            "workers": api.workers,
            "threads": threads,
            "worker_connections": _CONNECTIONS + threads,
            "graceful_timeout": api.graceful_timeout,
            "keepalive": api.keepalive,
            "child_exit": lambda _arbiter, worker: self.balance.leave(worker.age),
        }

    @property
    def connections_setting(self) -> str:
        """The setting that says how many connections a worker may have, beside a thousand."""
        return "api.waiters"

    @property
    def most_body(self) -> int:
        """How many bytes the body of a request may have."""
        limits = self.settings.limits
        return max(limits.max_messages_post_size, limits.max_queue_metadata)

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
    """Let no more threads work at once than were asked for, and refuse what would stand in line for too long."""
    complaint = _Complaint()

    def bounded(environ: dict[str, Any], start_response: object) -> object:
        if environ["PATH_INFO"] in _DOCUMENTS:
            return app(environ, start_response)
        try:
            with service.waiting.busy():
                return app(environ, start_response)
        except Overloaded as refusal:
            complaint.note()
            environ[REFUSAL] = refusal
            return app(environ, start_response)

    return bounded


class _Complaint:
    """Says in the log that requests are refused, but not for each of them."""

    def __init__(self) -> None:
        self._refused = 0
        self._said = -_SILENCE

    def note(self) -> None:
        """Count one more; a few may be lost where threads meet."""
        self._refused += 1
        now = time.monotonic()
        if now - self._said >= _SILENCE:
            self._said = now
            _log.warning("more requests than can be served", refused=self._refused)
            self._refused = 0


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
