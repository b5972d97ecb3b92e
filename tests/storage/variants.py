"""The drivers that the suite runs over: one line each.

A difference between drivers is a field here, and a test asks for the field; no
test asks for the name of a driver.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.storage.pooled import pooled_uri


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to open a store."""

    name: str  # how pytest shows it
    uri: Callable[[Path], str]  # names the store that belongs to a folder, empty for a new folder
    shared: bool  # whether it outlives its processes, and several can open it at once
    mixed: bool = False  # whether it is several stores, in which a queue lives in one
    forgets: bool = True  # whether the janitor forgets what moved away, or else the server, by its own clock
    way: Callable[[str, int], str] | None = None  # names the same store by another port, if it has one port
    batches: int = 120  # that each of many producers posts while all of them work on it at once


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def _by_port(uri: str, port: int) -> str:
    """Return a URI that leads to the same server by another port, and to no other server."""
    return re.sub(r":\d+/", f":{port}/", uri).replace("replicaSet=hermod", "directConnection=true")


VARIANTS = (
    Variant(name="memory", uri=lambda folder: "memory:", shared=False),
    Variant(name="sqlite", uri=_sqlite, shared=True),
    Variant(name="redis", uri=servers.redis_uri, shared=True, forgets=False, way=_by_port),
    Variant(name="redis-cluster", uri=servers.redis_cluster_uri, shared=True, forgets=False),
    Variant(name="mongodb", uri=servers.mongodb_uri, shared=True, batches=10, way=_by_port),
)


def _pools(folder: Path, *kinds: Callable[[Path], str]) -> str:
    """Return the URI of a mix of pools, two of the kind where there is one kind."""
    folders = [folder / f"pool{number}" for number in range(max(2, len(kinds)))]
    pools = [kind(where) for kind, where in zip(itertools.cycle(kinds), folders, strict=False)]
    return pooled_uri(_sqlite(folder / "control"), pools)


#: Mixes of pools: each queue lives in one of them.
MIXES = (
    Variant(name="pools-sqlite", uri=lambda folder: _pools(folder, _sqlite), shared=True, mixed=True),
    Variant(
        name="pools-mixed",
        uri=lambda folder: _pools(folder, _sqlite, servers.redis_uri, servers.mongodb_uri),
        shared=True,
        mixed=True,
        batches=10,
    ),
)


def _over(variants: Iterable[Variant]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("variant", list(variants), ids=lambda variant: variant.name, indirect=True)


#: Runs a test over single drivers only.
over_drivers = _over(VARIANTS)

#: Runs a test over those drivers only that several processes can share.
over_shared = _over(variant for variant in VARIANTS if variant.shared)

#: Runs a test over everything that several processes can share.
over_shared_and_mixed = _over(variant for variant in (*VARIANTS, *MIXES) if variant.shared)
