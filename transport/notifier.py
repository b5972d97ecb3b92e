"""Runs the worker that tells subscribers, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING

import structlog

from transport.files import allow_files
from transport.wiring import notifier_worker

if TYPE_CHECKING:
    from transport.service import Service

_END = 20.0  # seconds that deliveries may take to end with their process

_log = structlog.get_logger()


def run(service: Service) -> None:
    """Be the notifier until SIGTERM or SIGINT."""
    asyncio.run(_serve(service))


async def _serve(service: Service) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    allow_files(service.settings.notifier.concurrency, "notifier.concurrency")
    _log.info("delivering")
    await notifier_worker(service).run(stop)


class NotifierThread:
    """A notifier for the store that no other process can see."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="notifier", daemon=True)

    def __enter__(self) -> NotifierThread:
        """Start it."""
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and what it delivers."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_END)

    def _main(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        allow_files(self._service.settings.notifier.concurrency, "notifier.concurrency")
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await notifier_worker(self._service).run(self._stop)
