"""Serves the REST application with gunicorn, configured from the settings alone."""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from queues.errors import HermodError, StoreUnavailable
from transport.janitor import run_janitor

# Imported before the fork, so that the workers share the memory and start at once.
from transport.wiring import open_service
from transport.wsgi.app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from transport.service import Service
    from transport.settings import Settings

_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - gunicorn creates its files there safely
_LONGEST_REQUEST_LINE = 8190  # bytes; gunicorn knows no higher bound
_LONGEST_HEADER = 8190  # bytes
_MOST_HEADERS = 100
_CONNECTIONS = 1000  # kept open by one worker at a time, beside those that it serves
_READ_TIMEOUT = 10  # seconds without a byte after which a client is given up
_JANITOR_END = 5.0  # seconds that a step of the janitor's may take when the process ends

log = structlog.get_logger()


class CannotListen(HermodError):
    """The address cannot be listened on."""

    code = "cannot-listen"


class Server(BaseApplication):  # type: ignore[misc]
    """The REST service in a master and some worker processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open = ExitStack()  # what a worker has opened; empty in the master
        self._service: Service | None = None  # that of a worker
        super().__init__()

    def load_config(self) -> None:
        """Set every option that matters; one that this gunicorn does not know is not needed there."""
        for name, value in _options(self.settings).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)
        self.cfg.set("when_ready", _announce)
        self.cfg.set("worker_exit", lambda _arbiter, _worker: self._open.close())

    def load(self) -> Callable[..., object]:
        """Open the service and build its application; runs in each worker, after the fork."""
        try:
            service = open_service(self.settings)
        except HermodError as error:
            log.error("a worker cannot start", reason=str(error))  # noqa: TRY400 - expected, so no traceback
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error
        self._open.callback(service.close)
        self._service = service
        if self.settings.in_memory:
            from transport.notifier import NotifierThread

            self._open.enter_context(_JanitorThread(service, self.settings))
            self._open.enter_context(NotifierThread(service))
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


class _QuietLogger(Logger):  # type: ignore[misc]
    """Leaves output to the root logger, and business as usual unsaid."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Take no handler of gunicorn's own."""
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(cfg.loglevel.upper())

    def access(self, *_: object) -> None:
        """Write nothing: the application logs each request itself."""


def run(settings: Settings) -> None:
    """Serve until told to stop; ends in SystemExit, with 1 if anything failed.

    A store that does not answer is no reason not to start: until it does, requests get
    503. Raises what `open_service` raises if the service cannot be opened, CannotListen,
    and StoreUnsupported.
    """
    # One clear error beats one from each worker. Nothing stays open: connections do not survive a fork.
    with closing(open_service(settings)) as service:
        try:
            service.clock()
        except StoreUnavailable as error:
            log.warning("the store does not answer yet", reason=str(error))
    _check_free(settings.api.address())
    master = os.getpid()
    try:
        Server(settings).run()
    except SystemExit as end:
        if os.getpid() != master:  # a worker: gunicorn tells by the code whether to start another one
            raise
        raise SystemExit(1 if end.code else 0) from end


def _check_free(address: tuple[str, int]) -> None:
    """Raise CannotListen for an address that cannot be had, for which gunicorn would wait and try again."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotListen(f"Cannot listen on {host} port {port}: {error.strerror}.") from error


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """A worker whose threads do not wait forever for clients that stop sending."""

    def enqueue_req(self, conn: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Bound every read from the connection, and hand it to a thread."""
        seconds = struct.pack("ll", _READ_TIMEOUT, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        super().enqueue_req(conn)

    def handle_exit(self, *signal: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Begin to end: whoever waits for messages waits no longer."""
        super().handle_exit(*signal)
        self.app.let_go()


def _options(settings: Settings) -> dict[str, object]:
    api = settings.api
    return {
        "bind": api.bind,
        "worker_class": PatientWorker,
        "workers": api.workers,
        "threads": api.threads + api.waiters,
        "worker_connections": _CONNECTIONS + api.threads + api.waiters,
        "graceful_timeout": api.graceful_timeout,
        "keepalive": api.keepalive,
        "preload_app": False,
        "proc_name": "hermod",
        "logger_class": _QuietLogger,
        "loglevel": "debug" if settings.log.level == "debug" else "warning",
        "accesslog": None,
        "limit_request_line": _LONGEST_REQUEST_LINE,
        "limit_request_fields": _MOST_HEADERS,
        "limit_request_field_size": _LONGEST_HEADER,
        # Nobody is trusted to name the path or the scheme in a header, not even a proxy on this machine.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "header_map": "drop",
        # The heartbeat is a file that is touched every second; on a busy disk that can block a worker.
        "worker_tmp_dir": _MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None,
        # Otherwise a socket that controls the server appears in the home folder.
        "control_socket_disable": True,
    }


def _announce(arbiter: Any) -> None:  # noqa: ANN401 - gunicorn has no types
    for listener in arbiter.LISTENERS:
        log.info("listening", url=str(listener), workers=arbiter.cfg.workers)
