"""Opens a store by its URI.

A driver is a function `connect(uri, *, timeout, clock)` that returns a
`queues.ports.Driver`. It is registered under its URI scheme as an entry point of
the group `hermod.stores`, so a package from outside can add one, and it is
imported only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, cast

from queues.errors import StoreUnsupported
from queues.ports import Driver

GROUP = "hermod.stores"


class Connect(Protocol):
    """How every driver is opened."""

    def __call__(self, uri: str, *, timeout: float, clock: Callable[[], int] | None) -> Driver:
        """Open the store; see `connect`."""


def connect(uri: str, *, timeout: float = 5.0, clock: Callable[[], int] | None = None) -> Driver:
    """Open the store that a URI names.

    `timeout` (seconds) bounds every wait for the engine. `clock` (ms since the
    epoch) replaces the store's own clock; tests use it.

    Raises StoreUnsupported for a scheme that nobody registered or whose library
    is not installed; whatever the driver says about the rest of the URI.
    """
    scheme = uri.partition(":")[0]
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(sorted(found))
        raise StoreUnsupported(f"There is no store driver for {scheme!r}; known are: {known}.")
    try:
        driver = cast(Connect, found[scheme].load())
    except ModuleNotFoundError as absent:
        extra = found[scheme].module.rpartition(".")[2]  # a driver is named like its extra
        raise StoreUnsupported(
            f"The {scheme} store needs the library {absent.name!r}: pip install 'hermod[{extra}]'."
        ) from absent
    return driver(uri, timeout=timeout, clock=clock)
