"""Serves the REST application with granian, whose HTTP is not made of Python.

Its workers are processes, as gunicorn's are, and end when its parent does. Requests come by ASGI, because its WSGI
takes X_Project_ID for X-Project-ID, and shows a path only decoded.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog

from queues.errors import HermodError
from transport import logs
from transport.files import allow_files
from transport.server import CannotListen, check_start
from transport.wiring import open_service
from transport.wsgi.bridge import Bridge
from transport.wsgi.server import application, connections_of, most_body, threads_of
from transport.wsgi.threads import ThreadLoop

if TYPE_CHECKING:
    from granian.server.common import AbstractServer

    from transport.settings import Settings

_LOOP = "hermod"  # the name of the loop of `transport.wsgi.threads`
_BODY = 60.0  # seconds until all of a body is there
_HEAD = 10.0  # seconds until a head is there, where connections are not kept
_MOST_HEAD = 65536  # bytes
_BACKLOG = 2048  # connections that the system keeps for a worker that does not take them yet
_MILLISECONDS = 1000

#: The server of the parent, in a worker that was forked: as it was then, but for signals that came since.
_forked_from: list[AbstractServer[Any]] = []

log = structlog.get_logger()


class GranianMissing(HermodError):
    """The server granian needs a library that is not installed: pip install 'hermod[granian]'."""

    code = "granian-missing"


try:
    from granian import loops
except ModuleNotFoundError as absent:
    raise GranianMissing from absent


@loops.register(_LOOP)
def _loop() -> ThreadLoop:
    """Return the loop of a worker; the first thing that is asked for in its process."""
    # Until the loop hears them, it has the handlers of its parent, to whom they mean to stop the workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if _forked_from and _forked_from[0].interrupt_signal:  # which it was told before that
        raise SystemExit(0)
    loop = ThreadLoop(patience=_BODY)
    asyncio.set_event_loop(loop)
    return loop


def run(settings: Settings) -> None:
    """Serve until told to stop; raises what `transport.server.run` does, SystemExit only where something failed."""
    address = _resolved(*settings.api.address())
    check_start(settings, address)
    server = _server(settings, *address)
    _forked_from[:] = [server]
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}"
    server.on_startup(lambda: log.info("listening", url=url, workers=settings.api.workers))
    try:
        server.serve(target_loader=partial(_load, settings, os.getpid()), wrap_loader=False)
    except SystemExit:
        # Workers that end by themselves at the Ctrl-C that ends their parent are counted as failed.
        if not server.interrupt_signal:
            raise SystemExit(1) from None


def _resolved(host: str, port: int) -> tuple[str, int]:
    """Return an address as numbers, which is all that granian knows. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"Cannot listen on {host} port {port}: {error.strerror}.") from error
    return str(found[0][4][0]), port


def _server(settings: Settings, host: str, port: int) -> AbstractServer[Any]:
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    api = settings.api
    return Granian(
        "hermod",
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        loop=cast("Loops", _LOOP),
        runtime_mode=RuntimeModes.st,
        workers=api.workers,
        backlog=_BACKLOG,
        backpressure=connections_of(api),
        http1_settings=HTTP1Settings(
            header_read_timeout=round((api.keepalive or _HEAD) * _MILLISECONDS),
            keep_alive=api.keepalive > 0,
            max_buffer_size=_MOST_HEAD,
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=api.graceful_timeout,
        log_access=False,
        log_level=LogLevels.debug if settings.log.level == "debug" else LogLevels.error,
        log_dictconfig={"formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}},
    )


def _load(settings: Settings, parent: int) -> Bridge:
    """Open the service and build its application; runs in each worker."""
    logs.configure(settings.log)  # a worker may be a new process that knows nothing
    loop = cast("ThreadLoop", asyncio.get_event_loop_policy().get_event_loop())
    opened = ExitStack()
    try:
        service = open_service(settings)
    except HermodError as error:
        log.error("a worker cannot start", reason=str(error))  # noqa: TRY400 - expected, so no traceback
        raise SystemExit(1) from error
    opened.callback(service.close)
    allow_files(connections_of(settings.api), "api.waiters")
    app = application(service, settings, opened)
    loop.prepare(threads_of(settings.api), stopping=service.waiting.close, ended=opened.close)
    loop.look_after(parent)
    return Bridge(app, most=most_body(settings), patience=_BODY)
