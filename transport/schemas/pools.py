"""Arguments of the operations on pools and flavors."""

from __future__ import annotations

from typing import Any

import msgspec


class PoolRef(msgspec.Struct, kw_only=True, frozen=True):
    """Names a pool."""

    pool_name: str


class PoolGet(PoolRef, kw_only=True, frozen=True):
    """A pool, and whether to show its options."""

    detailed: bool = False


class Listing(msgspec.Struct, kw_only=True, frozen=True):
    """A page of pools or flavors."""

    marker: str | None = None
    limit: int | None = None
    detailed: bool = False


class PoolTerms(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a pool is."""

    uri: str
    weight: int
    flavor: str = ""
    options: dict[str, Any] = msgspec.field(default_factory=dict)


class PoolCreate(PoolRef, kw_only=True, frozen=True):
    """A pool to register."""

    terms: PoolTerms


class PoolChange(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be different about a pool; an empty flavor means none."""

    uri: str | msgspec.UnsetType = msgspec.UNSET
    weight: int | msgspec.UnsetType = msgspec.UNSET
    flavor: str | msgspec.UnsetType = msgspec.UNSET
    options: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class PoolUpdate(PoolRef, kw_only=True, frozen=True):
    """A change of a pool."""

    change: PoolChange


class FlavorRef(msgspec.Struct, kw_only=True, frozen=True):
    """Names a flavor."""

    flavor_name: str


class FlavorTerms(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a flavor is; its capabilities follow from its pools, whatever is given."""

    pool_list: list[str]
    capabilities: Any = None


class FlavorCreate(FlavorRef, kw_only=True, frozen=True):
    """A flavor to declare."""

    terms: FlavorTerms


class FlavorPools(msgspec.Struct, kw_only=True, frozen=True):
    """The pools that a flavor is to have."""

    pool_list: list[str]


class FlavorUpdate(FlavorRef, kw_only=True, frozen=True):
    """A change of a flavor."""

    pools: FlavorPools
