"""The stores of the pools, opened when they are asked for and closed when they are no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from queues.models import JsonObject
from queues.ports import Driver
from storage.registry import connect

_LINGER = 60.0  # seconds that a store stays open for those who may be using it still


class OpenStores:
    """Keeps one opened store for each URI and timeout.

    `timeout` (seconds) bounds every wait for an engine; a pool's option `timeout`
    goes before it.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], int] | None = None) -> None:
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[tuple[str, float], Driver] = {}
        self._unwanted: dict[tuple[str, float], float] = {}  # since when, by the monotonic clock

    def open(self, uri: str, options: JsonObject) -> Driver:
        """Return the store that a URI names; see `queues.ports.Stores`."""
        key = (uri, float(options.get("timeout", self._timeout)))
        found = self._open.get(key)
        if found is not None:
            return found
        opened = connect(uri, timeout=key[1], clock=self._clock)
        with self._lock:
            kept = self._open.setdefault(key, opened)
        if kept is not opened:  # another thread was faster
            opened.close()
        return kept

    def retain(self, uris: Collection[str]) -> None:
        """Close what nobody has wanted for a while; see `queues.ports.Stores`."""
        now = time.monotonic()
        old: list[Driver] = []
        with self._lock:
            for key in list(self._open):
                if key[0] in uris:
                    self._unwanted.pop(key, None)
                elif now - self._unwanted.setdefault(key, now) > _LINGER:
                    del self._unwanted[key]
                    old.append(self._open.pop(key))
        for driver in old:
            driver.close()

    def close(self) -> None:
        """Close every store."""
        with self._lock:
            drivers, self._open = list(self._open.values()), {}
        for driver in drivers:
            driver.close()
