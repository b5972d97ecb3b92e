"""Who watches which queue, within one process: what all drivers have of `MessageStore.watch` in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from queues.models import Address

Wake = Callable[[], None]


class Wakeups:
    """The watches of a process on one store.

    `begun` is called when a queue gets its first watch, and `ended` when it loses its last one; each within the
    lock that guards the watches, so they come in order and must not wait. Whoever learns of
    something new calls `wake`.
    """

    def __init__(
        self,
        begun: Callable[[Address], None] | None = None,
        ended: Callable[[Address], None] | None = None,
    ) -> None:
        self._begun = begun
        self._ended = ended
        self._lock = threading.Lock()
        self._numbers = count()
        self._watches: dict[Address, dict[int, Wake]] = {}

    def watch(self, address: Address, wake: Wake) -> Callable[[], None]:
        """Add a watch; return what ends it, which may be called again."""
        number = next(self._numbers)
        with self._lock:
            first = address not in self._watches
            self._watches.setdefault(address, {})[number] = wake
            if first and self._begun:
                self._begun(address)
        return partial(self._end, address, number)

    def watched(self) -> Sequence[Address]:
        """Return the queues that are watched."""
        with self._lock:
            return list(self._watches)

    def wake(self, address: Address) -> None:
        """Tell everybody who watches a queue."""
        if address not in self._watches:
            return
        with self._lock:
            found = list(self._watches.get(address, {}).values())
        for wake in found:
            wake()

    def wake_all(self) -> None:
        """Tell everybody, where what is new cannot be known."""
        for address in self.watched():
            self.wake(address)

    def _end(self, address: Address, number: int) -> None:
        with self._lock:
            watches = self._watches.get(address, {})
            if watches.pop(number, None) is not None and not watches:
                del self._watches[address]
                if self._ended:
                    self._ended(address)
