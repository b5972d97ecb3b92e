"""Operations on pools, and on the flavors that they have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from queues.errors import Invalid, PoolNotFound
from queues.models import Caller, JsonObject, Pool
from queues.service.flavors import Flavor
from queues.service.moving import Drain
from queues.service.pools import PoolChanges
from transport.dispatch import Operation
from transport.problems import FlavorChangeRefused, FlavorRefused
from transport.schemas.pools import (
    FlavorCreate,
    FlavorRef,
    FlavorUpdate,
    Listing,
    PoolCreate,
    PoolGet,
    PoolRef,
    PoolUpdate,
)
from transport.service import Service


def pool_list(service: Service, _caller: Caller, args: Listing) -> Sequence[Pool]:
    """List pools by name."""
    return service.pools.list(marker=args.marker or "", limit=args.limit)


def pool_get(service: Service, _caller: Caller, args: PoolGet) -> Pool:
    """Return a pool."""
    return service.pools.get(args.pool_name)


def pool_create(service: Service, _caller: Caller, args: PoolCreate) -> None:
    """Register a pool, or register it anew."""
    terms = args.terms
    service.pools.put(
        args.pool_name, uri=terms.uri, weight=terms.weight, flavor=terms.flavor, options=terms.options
    )


def pool_update(service: Service, _caller: Caller, args: PoolUpdate) -> Pool:
    """Change a pool; return it."""
    given: JsonObject = {
        name: value
        for name, value in msgspec.structs.asdict(args.change).items()
        if value is not msgspec.UNSET
    }
    if not given:
        raise Invalid("A change of a pool names at least one of uri, weight, flavor and options.")
    return service.pools.update(args.pool_name, PoolChanges(**given))


def pool_delete(service: Service, _caller: Caller, args: PoolRef) -> None:
    """Take a pool off the list, if no queue lives there."""
    service.pools.remove(args.pool_name, in_use=partial(service.moving.in_use, args.pool_name))


def pool_drain(service: Service, _caller: Caller, args: PoolRef) -> Drain:
    """Let a pool's queues be moved to other pools; return how far that has come."""
    return service.moving.start(args.pool_name)


def pool_drain_stop(service: Service, _caller: Caller, args: PoolRef) -> None:
    """Let a pool be; what was moved stays moved."""
    service.moving.stop(args.pool_name)


def pool_drain_get(service: Service, _caller: Caller, args: PoolRef) -> Drain:
    """Return how far the drain of a pool has come."""
    return service.moving.progress(args.pool_name)


def flavor_list(service: Service, caller: Caller, args: Listing) -> Sequence[Flavor]:
    """List a project's flavors by name."""
    return service.flavors.list(
        caller.project, marker=args.marker or "", limit=args.limit, detailed=args.detailed
    )


def flavor_get(service: Service, caller: Caller, args: FlavorRef) -> Flavor:
    """Return a flavor."""
    return service.flavors.get(caller.project, args.flavor_name)


def flavor_create(service: Service, caller: Caller, args: FlavorCreate) -> None:
    """Declare a flavor, or declare it anew."""
    if not args.terms.pool_list:
        raise FlavorRefused("Bad Request")
    try:
        service.flavors.put(caller.project, args.flavor_name, args.terms.pool_list)
    except PoolNotFound as error:
        raise FlavorRefused(f"Flavor {args.flavor_name} could not be created, error:{error}") from error


def flavor_update(service: Service, caller: Caller, args: FlavorUpdate) -> Flavor:
    """Give a flavor other pools; return it."""
    try:
        return service.flavors.update(caller.project, args.flavor_name, args.pools.pool_list)
    except PoolNotFound as error:
        raise FlavorChangeRefused(f"Flavor {args.flavor_name} could not be updated, error:{error}") from error


def flavor_delete(service: Service, caller: Caller, args: FlavorRef) -> None:
    """Remove a flavor; its queues stay where they are."""
    service.flavors.remove(caller.project, args.flavor_name)


OPERATIONS = (
    Operation(name="pool_list", rule="pools:get_all", arguments=Listing, run=pool_list),
    Operation(name="pool_get", rule="pools:get", arguments=PoolGet, run=pool_get),
    Operation(name="pool_create", rule="pools:create", arguments=PoolCreate, run=pool_create),
    Operation(name="pool_update", rule="pools:update", arguments=PoolUpdate, run=pool_update),
    Operation(name="pool_delete", rule="pools:delete", arguments=PoolRef, run=pool_delete),
    Operation(name="pool_drain", rule="pools:update", arguments=PoolRef, run=pool_drain),
    Operation(name="pool_drain_stop", rule="pools:update", arguments=PoolRef, run=pool_drain_stop),
    Operation(name="pool_drain_get", rule="pools:get", arguments=PoolRef, run=pool_drain_get),
    Operation(name="flavor_list", rule="flavors:get_all", arguments=Listing, run=flavor_list),
    Operation(name="flavor_get", rule="flavors:get", arguments=FlavorRef, run=flavor_get),
    Operation(name="flavor_create", rule="flavors:create", arguments=FlavorCreate, run=flavor_create),
    Operation(name="flavor_update", rule="flavors:update", arguments=FlavorUpdate, run=flavor_update),
    Operation(name="flavor_delete", rule="flavors:delete", arguments=FlavorRef, run=flavor_delete),
)
