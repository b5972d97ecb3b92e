"""The drivers that the suite runs over: one line each.

A difference between drivers is a field here, and a test asks for the field; no
test asks for the name of a driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to open a store."""

    name: str  # how pytest shows it
    uri: Callable[[Path], str]  # names the store that belongs to a folder, empty for a new folder
    shared: bool  # whether it outlives its processes, and several can open it at once
    batches: int = 120  # that each of many producers posts while all of them work on it at once


VARIANTS = (
    Variant(name="memory", uri=lambda folder: "memory:", shared=False),
    Variant(name="sqlite", uri=lambda folder: f"sqlite:///{folder / 'store.db'}", shared=True),
    Variant(name="redis", uri=servers.redis_uri, shared=True),
    Variant(name="redis-cluster", uri=servers.redis_cluster_uri, shared=True),
    Variant(name="mongodb", uri=servers.mongodb_uri, shared=True, batches=10),
)

#: Runs a test over those drivers only that several processes can share.
over_shared = pytest.mark.parametrize(
    "variant",
    [variant for variant in VARIANTS if variant.shared],
    ids=lambda variant: variant.name,
    indirect=True,
)
