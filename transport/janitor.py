"""The janitor reclaims what expiry, purge and drop left behind; nothing but disk space depends on it."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

import structlog

from queues.errors import StoreError
from transport.signals import collect

if TYPE_CHECKING:
    from queues.ports import MessageStore, Router
    from transport.service import Service
    from transport.settings import Settings

_LONGEST_PAUSE = 30.0  # seconds between two rounds while a store fails
_BREATHER = 0.01  # seconds between two steps, in which requests get at the store

log = structlog.get_logger()


def run(service: Service, settings: Settings) -> None:
    """Be the janitor until SIGTERM or SIGINT; raises what nobody expected."""
    arrived = collect(signal.SIGTERM, signal.SIGINT)
    stop = Event()
    with ThreadPoolExecutor(1) as thread:
        janitor = thread.submit(run_janitor, service, settings, stop)
        janitor.add_done_callback(lambda _: arrived.put(signal.SIGTERM))
        arrived.get()
        stop.set()
    janitor.result()


def run_janitor(service: Service, settings: Settings, stop: Event) -> None:
    """Make a round every so often until `stop` is set; while a store fails, less and less often."""
    pause = 0.0
    while not stop.wait(pause):
        if make_round(service.router, settings.janitor.batch, stop):
            pause = settings.janitor.interval
        else:
            pause = min(max(2 * pause, settings.janitor.interval), _LONGEST_PAUSE)


def make_round(router: Router, batch: int, stop: Event) -> bool:
    """Reclaim what there is to reclaim in every store; false if a store failed."""
    try:
        stores = router.stores()
    except StoreError as error:
        log.warning("cannot find the stores", reason=str(error))
        return False
    return all([_clean(name, store, batch, stop) for name, store in stores.items()])  # noqa: C419 - all are cleaned


def _clean(name: str, store: MessageStore, batch: int, stop: Event) -> bool:
    total = 0
    try:
        while not stop.is_set():
            reclaimed = store.expire(now=store.clock(), limit=batch)
            total += reclaimed
            if reclaimed < batch or stop.wait(_BREATHER):
                break
    except StoreError as error:
        log.warning("cannot clean a store", pool=name, reason=str(error))
        return False
    if total:
        log.debug("reclaimed", pool=name, rows=total)
    return True
