"""Runs an application in gunicorn, configured from the settings alone: what the services have in common."""

from __future__ import annotations

import os
import socket
from abc import abstractmethod
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from queues.errors import HermodError, StoreUnavailable
from transport.files import allow_files

# Imported before the fork, so that the workers share the memory and start at once.
from transport.wiring import open_service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transport.service import Service
    from transport.settings import Settings

_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - gunicorn creates its files there safely
_LONGEST_REQUEST_LINE = 8190  # bytes; gunicorn knows no higher bound
_LONGEST_HEADER = 8190  # bytes
_MOST_HEADERS = 100

log = structlog.get_logger()


class CannotListen(HermodError):
    """The address cannot be listened on."""

    code = "cannot-listen"


class GunicornServer(BaseApplication):  # type: ignore[misc]
    """A service in a master and some worker processes."""

    scheme = "http"  # of its address, as it is logged

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.opened = ExitStack()  # what a worker has opened; empty in the master
        super().__init__()

    @property
    @abstractmethod
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""

    @abstractmethod
    def options(self) -> Mapping[str, object]:
        """Return what is special about this service, by gunicorn's names."""

    @property
    @abstractmethod
    def connections_setting(self) -> str:
        """The setting that says how many connections a worker may have."""

    @abstractmethod
    def application(self, service: Service) -> Callable[..., object]:
        """Build the application of a worker."""

    def load_config(self) -> None:
        """Set every option that matters; one that this gunicorn does not know is not needed there."""
        for name, value in {**_common(self.settings), **self.options()}.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)
        self.cfg.set("when_ready", self._announce)
        self.cfg.set("worker_exit", lambda _arbiter, _worker: self.opened.close())

    def load(self) -> Callable[..., object]:
        """Open the service and build its application; runs in each worker, after the fork."""
        try:
            service = open_service(self.settings)
        except HermodError as error:
            log.error("a worker cannot start", reason=str(error))  # noqa: TRY400 - expected, so no traceback
            raise SystemExit(Arbiter.APP_LOAD_ERROR) from error
        self.opened.callback(service.close)
        allow_files(self.cfg.worker_connections, self.connections_setting)
        return self.application(service)

    def _announce(self, arbiter: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        for listener in arbiter.LISTENERS:
            address = str(listener).partition("://")[2]
            log.info("listening", url=f"{self.scheme}://{address}", workers=arbiter.cfg.workers)


class _QuietLogger(Logger):  # type: ignore[misc]
    """Leaves output to the root logger, and business as usual unsaid."""

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Take no handler of gunicorn's own."""
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(cfg.loglevel.upper())

    def access(self, *_: object) -> None:
        """Write nothing: the application logs each request itself."""


def run(server: GunicornServer) -> None:
    """Serve until told to stop; ends in SystemExit, with 1 if anything failed.

    A store that does not answer is no reason not to start: until it does, requests get
    503. Raises what `open_service` raises if the service cannot be opened, CannotListen,
    and StoreUnsupported.
    """
    # One clear error beats one from each worker. Nothing stays open: connections do not survive a fork.
    with closing(open_service(server.settings)) as service:
        try:
            service.clock()
        except StoreUnavailable as error:
            log.warning("the store does not answer yet", reason=str(error))
    _check_free(server.address)
    master = os.getpid()
    try:
        server.run()
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


def _common(settings: Settings) -> Mapping[str, object]:
    return {
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
