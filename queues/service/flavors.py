"""Flavors: names under which a project's queues ask for pools of a kind.

A flavor belongs to a project; which pools it has stands on the pools. So flavors of
one name in several projects have the same pools, and a pool has one flavor at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queues.errors import FlavorNotFound, Invalid
from queues.limits import Limits, page_limit
from queues.models import Record
from queues.ports import RecordStore
from queues.service.pools import MAX_FLAVOR, PoolService

_KIND = "flavor"


@dataclass(frozen=True, kw_only=True, slots=True)
class Flavor:
    """A flavor as a project sees it."""

    name: str
    pools: Sequence[str]  # by name; none where all were taken away
    capabilities: Sequence[str] | None = None  # of its pools; None where nobody asked


class FlavorService:
    """Declares, shows and removes flavors."""

    def __init__(self, records: RecordStore, pools: PoolService, limits: Limits) -> None:
        self._records = records
        self._pools = pools
        self._limits = limits

    def put(self, project: str, name: str, pools: Sequence[str]) -> None:
        """Declare a flavor, or declare it anew, with these pools.

        Raises Invalid, and PoolNotFound, whose message names the pool.
        """
        if not 1 <= len(name) <= MAX_FLAVOR:
            raise Invalid(f"The name of a flavor has 1 to {MAX_FLAVOR} characters.")
        if not pools:
            raise Invalid("Bad Request")
        self._pools.join(name, pools)
        self._records.insert(Record(kind=_KIND, scope=project, name=name, data={}))

    def update(self, project: str, name: str, pools: Sequence[str]) -> Flavor:
        """Give a flavor other pools, and return it.

        Raises Invalid, FlavorNotFound, PoolNotFound.
        """
        if not pools:
            raise Invalid("Bad Request")
        self.check(project, name)
        self._pools.join(name, pools)
        return self.get(project, name)

    def get(self, project: str, name: str) -> Flavor:
        """Return a flavor with its capabilities.

        Raises FlavorNotFound.
        """
        self.check(project, name)
        return self._described(name, detailed=True)

    def check(self, project: str, name: str) -> None:
        """Raise FlavorNotFound unless a project has a flavor."""
        if self._records.fetch(_KIND, project, name) is None:
            raise FlavorNotFound(f"Flavor {name} does not exist")

    def list(
        self, project: str, *, marker: str = "", limit: int | None = None, detailed: bool = False
    ) -> Sequence[Flavor]:
        """Return a page of a project's flavors by name.

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(limit, self._limits.max_flavors_per_page)
        records = self._records.scan(_KIND, project, after=marker, limit=limit)
        return [self._described(record.name, detailed=detailed) for record in records]

    def remove(self, project: str, name: str) -> None:
        """Remove a flavor, if it is there; its pools have none then, and its queues stay where they are."""
        if self._records.remove(_KIND, project, name):
            self._pools.join(name, [])

    def _described(self, name: str, *, detailed: bool) -> Flavor:
        members = self._pools.members(name)
        capabilities: Sequence[str] | None = None
        if detailed:
            capabilities = self._pools.driver(members[0].name).capabilities if members else ()
        return Flavor(name=name, pools=[pool.name for pool in members], capabilities=capabilities)
