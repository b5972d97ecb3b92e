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
    from queues.service.dead_letters import DeadLetterService
    from queues.service.pools import PoolService
    from transport.service import Service
    from transport.settings import Settings

_LONGEST_PAUSE = 30.0  # seconds between two rounds while a store fails
_BREATHER = 0.01  # seconds between two steps, in which requests get at the store

log = structlog.get_logger()


def run(service: Service, settings: Settings) -> None:
    """Be the janitor until SIGTERM or SIGINT; raises what nobody expected."""
    arrived = collect(signal.SIGTERM, signal.SIGINT)
    stop = Event()
    with ThreadPoolExecutor(2) as threads:
        works = [threads.submit(work, service, settings, stop) for work in (run_janitor, run_mover)]
        for work in works:
            work.add_done_callback(lambda _: arrived.put(signal.SIGTERM))
        arrived.get()
        stop.set()
    for work in works:
        work.result()


def run_mover(service: Service, settings: Settings, stop: Event) -> None:
    """Move the queues that have to be moved, until `stop` is set."""
    while not stop.wait(settings.janitor.interval):
        try:
            service.moving.run(stop)
        except StoreError as error:
            log.warning("cannot move queues", reason=str(error))


def run_janitor(service: Service, settings: Settings, stop: Event) -> None:
    """Make a round every so often until `stop` is set; while a store fails, less and less often."""
    pause = 0.0
    while not stop.wait(pause):
        if make_round(service, settings.janitor.batch, stop):
            pause = settings.janitor.interval
        else:
            pause = min(max(2 * pause, settings.janitor.interval), _LONGEST_PAUSE)


def make_round(service: Service, batch: int, stop: Event) -> bool:
    """Reclaim what there is to reclaim in every store, and finish what others began; false if a store failed."""
    try:
        names = service.pools.names()
    except StoreError as error:
        log.warning("cannot find the pools", reason=str(error))
        return False
    results = [_clean(service.pools, name, batch, stop) for name in names]
    return all([*results, _forward(service.dead_letters, stop)])


def _forward(dead_letters: DeadLetterService, stop: Event) -> bool:
    try:
        dead_letters.sweep_all(stop)
    except StoreError as error:
        log.warning("cannot forward dead letters", reason=str(error))
        return False
    return True


def _clean(pools: PoolService, name: str, batch: int, stop: Event) -> bool:
    total = 0
    try:
        store = pools.driver(name).messages
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
