"""Pools: the stores that queues live in, and the choice of one for a new queue.

All pools stand in one record, for their rules are about pools among each other: no
two are the same store, and those of a flavor can do the same things.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from queues.errors import (
    ConcurrentChange,
    Invalid,
    LastOfFlavor,
    NoPool,
    PoolInUse,
    PoolMissing,
    PoolNotFound,
    PoolsDiffer,
    Refused,
    StoreError,
    UriTaken,
)
from queues.limits import Limits, check_range, page_limit
from queues.models import JsonObject, Pool, PoolState, Record
from queues.ports import Driver, RecordStore, Stores
from queues.redaction import HIDDEN, password_of, without_password

MAX_WEIGHT = 2**32 - 1
MAX_URI = 255  # characters
MAX_FLAVOR = 255  # characters

_KIND, _NAME = "pools", "registry"
_IDENTITY_KIND, _IDENTITY = "store", "identity"
_ATTEMPTS = 20  # to change the record while others change it
_POOL_NAME = re.compile(r"[a-zA-Z0-9_\-.]{1,64}").fullmatch


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolChanges:
    """What is to be different about a pool; None for what stays."""

    uri: str | None = None
    weight: int | None = None
    flavor: str | None = None  # "" for none
    options: JsonObject | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Registered:
    """A pool, and which store its URI turned out to name."""

    pool: Pool
    store: str  # the store's identity


@dataclass(frozen=True, slots=True)
class _Registry:
    """All pools at one time."""

    pools: Mapping[str, _Registered] = field(default_factory=dict)
    revision: int | None = None  # of the record; None where there is none yet


class PoolService:
    """Registers pools, opens them, and chooses among them.

    `control` is the store of the records, and of the queues of a service without
    pools. `cache_age` (seconds) is how old the list of pools may be that a queue is
    looked up by. Without `enabled` there are no pools.
    """

    def __init__(
        self,
        control: Driver,
        stores: Stores,
        limits: Limits,
        *,
        enabled: bool,
        cache_age: float = 1.0,
        timer: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.enabled = enabled
        self._control = control
        self._records: RecordStore = control.records
        self._stores = stores
        self._limits = limits
        self._cache_age = cache_age
        self._timer = timer
        self._draw = draw
        self._cached: tuple[float, _Registry] | None = None

    def list(self, *, marker: str = "", limit: int | None = None) -> Sequence[Pool]:
        """Return a page of pools by name.

        Raises Invalid for a limit out of range.
        """
        limit = page_limit(limit, self._limits.max_pools_per_page)
        return [pool for pool in self.all() if pool.name > marker][:limit]

    def all(self) -> Sequence[Pool]:
        """Return every pool by name."""
        pools = self._load().pools
        return [pools[name].pool for name in sorted(pools)]

    def get(self, name: str) -> Pool:
        """Return a pool.

        Raises PoolNotFound.
        """
        found = self._load().pools.get(name)
        if found is None:
            raise PoolNotFound
        return found.pool

    def put(
        self,
        name: str,
        *,
        uri: str,
        weight: int,
        flavor: str | None = None,
        options: JsonObject | None = None,
    ) -> None:
        """Register a pool, or register it anew; its store must answer.

        Raises Invalid for a value that breaks the rules or a store that cannot be
        used, UriTaken if another pool has the store.
        """
        if not _POOL_NAME(name):
            raise Invalid(
                "A pool name has 1 to 64 characters out of A-Z, a-z, 0-9, underscore, hyphen and full stop."
            )
        self._replace(Pool(name=name, uri=uri, weight=weight, flavor=flavor or None, options=options or {}))

    def update(self, name: str, changes: PoolChanges) -> Pool:
        """Change a pool and return it.

        Raises PoolNotFound and what `put` raises.
        """
        pool = self.get(name)
        if changes.uri is not None:
            pool = replace(pool, uri=changes.uri)
        if changes.weight is not None:
            pool = replace(pool, weight=changes.weight)
        if changes.flavor is not None:
            pool = replace(pool, flavor=changes.flavor or None)
        if changes.options is not None:
            pool = replace(pool, options=changes.options)
        self._replace(pool)
        return pool

    def set_state(self, name: str, state: PoolState) -> Pool:
        """Say whether a pool takes queues.

        Raises PoolNotFound.
        """

        def change(registry: _Registry) -> Mapping[str, _Registered]:
            found = registry.pools.get(name)
            if found is None:
                raise PoolNotFound
            return {**registry.pools, name: replace(found, pool=replace(found.pool, state=state))}

        return self._change(change)[name].pool

    def join(self, flavor: str, names: Sequence[str]) -> None:
        """Make these the pools of a flavor, and no others.

        Raises PoolNotFound, whose message names the pool, and Invalid if they cannot do the same things.
        """

        def change(registry: _Registry) -> Mapping[str, _Registered]:
            for name in names:
                if name not in registry.pools:
                    raise PoolNotFound(f"Pool {name} does not exist")
            pools = {
                name: replace(entry, pool=replace(entry.pool, flavor=None))
                if entry.pool.flavor == flavor
                else entry
                for name, entry in registry.pools.items()
            }
            for name in names:
                pools[name] = replace(pools[name], pool=replace(pools[name].pool, flavor=flavor))
                self._check_alike(pools, pools[name].pool)
            return pools

        self._change(change)

    def members(self, flavor: str) -> Sequence[Pool]:
        """Return the pools of a flavor by name."""
        return [pool for pool in self.all() if pool.flavor == flavor]

    def remove(self, name: str, *, in_use: Callable[[], bool]) -> None:
        """Take a pool off the list, if it is there.

        `in_use` tells whether any queue lives there; it is asked when no new one can come.

        Raises LastOfFlavor, PoolInUse.
        """
        try:
            pool = self.get(name)
        except PoolNotFound:
            return
        if pool.flavor is not None and len(self.members(pool.flavor)) == 1:
            raise LastOfFlavor
        self.set_state(name, PoolState.LEAVING)
        try:
            used = in_use()
        except BaseException:
            self.set_state(name, pool.state)
            raise
        if used:
            self.set_state(name, pool.state)
            raise PoolInUse

        self._change(lambda registry: {key: it for key, it in registry.pools.items() if key != name})

    def choose(self, flavor: str | None = None, *, but: Collection[str] = ()) -> str:
        """Draw a pool for a queue that asks for a flavor, or for none: the heavier, the likelier.

        "" is the default store, which serves where no pool is registered at all.

        Raises NoPool.
        """
        if not self.enabled:
            return ""
        pools = self.all()
        if not pools and not but:
            return ""
        eligible = [
            pool for pool in pools if pool.takes_queues and pool.flavor == flavor and pool.name not in but
        ]
        if not eligible:
            raise NoPool
        point = self._draw() * sum(pool.weight for pool in eligible)
        for pool in eligible:
            point -= pool.weight
            if point < 0:
                return pool.name
        return eligible[-1].name

    def accepts(self, name: str) -> bool:
        """Tell whether new queues may go to a pool at this moment."""
        if not name:
            return True
        found = self._load().pools.get(name)
        return found is not None and found.pool.state is PoolState.OPEN

    def driver(self, name: str) -> Driver:
        """Return the opened store of a pool; "" is the default store.

        Raises PoolMissing for a pool that is not registered, StoreError.
        """
        if not name:
            return self._control
        found = self._known().pools.get(name) or self._load().pools.get(name)
        if found is None:
            raise PoolMissing
        return self._stores.open(found.pool.uri, found.pool.options)

    def names(self) -> Sequence[str]:
        """Return where queues may live: the default store, as "", and every pool."""
        return ["", *(pool.name for pool in self.all())] if self.enabled else [""]

    def _replace(self, pool: Pool) -> None:
        _check(pool)
        store = self._identify(pool)

        def change(registry: _Registry) -> Mapping[str, _Registered]:
            for name, other in registry.pools.items():
                if name != pool.name and (other.pool.uri == pool.uri or other.store == store):
                    raise UriTaken(f"The pool {name} has this store.")
            before = registry.pools.get(pool.name)
            state = before.pool.state if before else PoolState.OPEN
            pools = {**registry.pools, pool.name: _Registered(pool=replace(pool, state=state), store=store)}
            self._check_alike(pools, pool)
            return pools

        self._change(change)

    def _identify(self, pool: Pool) -> str:
        """Connect to a pool's store and return its identity, which it is given if it has none."""
        try:
            driver = self._stores.open(pool.uri, pool.options)
            driver.messages.durability()
            mark = Record(kind=_IDENTITY_KIND, scope="", name=_IDENTITY, data={"id": secrets.token_hex(16)})
            driver.records.insert(mark)
            found = driver.records.fetch(_IDENTITY_KIND, "", _IDENTITY)
        except StoreError as error:
            reason = without_password(str(error), pool.uri)
            raise Invalid(f"The store of this pool cannot be used: {reason}") from error
        identity: str = (found or mark).data["id"]
        return identity

    def _check_alike(self, pools: Mapping[str, _Registered], pool: Pool) -> None:
        """Raise Invalid unless a pool can do what the others of its flavor can."""
        if pool.flavor is None:
            return
        mine = self._stores.open(pool.uri, pool.options).capabilities
        for name, other in pools.items():
            if name == pool.name or other.pool.flavor != pool.flavor:
                continue
            if list(self._stores.open(other.pool.uri, other.pool.options).capabilities) != list(mine):
                raise PoolsDiffer(
                    f"The pools of flavor {pool.flavor} must be able to do the same; {name} is different."
                )

    def _known(self) -> _Registry:
        """Return the pools as they were a moment ago."""
        if self._cached is not None and self._cached[0] > self._timer():
            return self._cached[1]
        return self._load()

    def _load(self) -> _Registry:
        record = self._records.fetch(_KIND, "", _NAME) if self.enabled else None
        registry = _Registry() if record is None else _decode(record)
        self._remember(registry)
        return registry

    def _remember(self, registry: _Registry) -> None:
        self._cached = (self._timer() + self._cache_age, registry)
        if self.enabled:
            self._stores.retain([entry.pool.uri for entry in registry.pools.values()])

    def _change(self, change: Callable[[_Registry], Mapping[str, _Registered]]) -> Mapping[str, _Registered]:
        """Apply a change to the record, again if somebody else was faster."""
        if not self.enabled:
            raise Refused("This service has no pools; see the setting pooling.")
        for _ in range(_ATTEMPTS):
            registry = self._load()
            pools = change(registry)
            data = {"pools": {name: _encode(entry) for name, entry in pools.items()}}
            record = Record(kind=_KIND, scope="", name=_NAME, data=data, revision=registry.revision or 0)
            done = (
                self._records.insert(record) if registry.revision is None else self._records.replace(record)
            )
            if done:
                self._cached = None
                return pools
        raise ConcurrentChange


def _check(pool: Pool) -> None:
    if not 1 <= len(pool.uri) <= MAX_URI:
        raise Invalid(f"The uri of a pool has 1 to {MAX_URI} characters.")
    if password_of(pool.uri) == HIDDEN:
        raise Invalid("The password in the uri is the sign that stands for one where a pool is shown.")
    if pool.uri.startswith("memory:"):
        raise Invalid("A store in memory belongs to one process; it cannot be a pool.")
    if pool.flavor is not None and len(pool.flavor) > MAX_FLAVOR:
        raise Invalid(f"The flavor of a pool has at most {MAX_FLAVOR} characters.")
    check_range("weight", pool.weight, 0, MAX_WEIGHT)
    timeout = pool.options.get("timeout")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 60
    ):
        raise Invalid("The option timeout of a pool must be a number of seconds, at most 60.")


def _encode(entry: _Registered) -> JsonObject:
    pool = entry.pool
    return {
        "uri": pool.uri,
        "weight": pool.weight,
        "flavor": pool.flavor,
        "options": pool.options,
        "state": pool.state.value,
        "store": entry.store,
    }


def _decode(record: Record) -> _Registry:
    pools = {
        name: _Registered(
            pool=Pool(
                name=name,
                uri=data["uri"],
                weight=data["weight"],
                flavor=data["flavor"],
                options=data["options"],
                state=PoolState(data["state"]),
            ),
            store=data["store"],
        )
        for name, data in record.data["pools"].items()
    }
    return _Registry(pools, record.revision)
