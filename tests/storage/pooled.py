"""A mix of pools that looks like one store, so that the suite runs over it: each queue lives in one of them.

What a store does in one step, the services do in several here; a test that asks for
what only one step can give says so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from queues.errors import ClaimNotFound, QueueNotFound
from queues.limits import Limits
from queues.models import (
    Address,
    Claim,
    Claimed,
    Durability,
    Lease,
    Message,
    NewMessage,
    Once,
    Outlook,
    Popped,
    Posted,
    Selection,
    Stats,
)
from queues.ports import Driver, QueueTransfers, RecordStore
from queues.service.catalogue import Catalogue, Place
from queues.service.dead_letters import DeadLetterService, Way
from queues.service.flavors import FlavorService
from queues.service.pools import PoolService
from queues.service.queues import QueueService
from storage import registry
from storage.pooling import OpenStores

SCHEME = "pooled:"


def pooled_uri(control: str, pools: Sequence[str]) -> str:
    """Return a URI for `connect`: the store of the records, and those of the pools."""
    return SCHEME + quote(json.dumps([control, *pools]), safe="")


def connect(uri: str, *, timeout: float = 5.0, clock: Callable[[], int] | None = None) -> Driver:
    """Open a store as the registry does, or a mix of pools."""
    if not uri.startswith(SCHEME):
        return registry.connect(uri, timeout=timeout, clock=clock)
    control, *pools = json.loads(unquote(uri.removeprefix(SCHEME)))
    return PooledDriver(registry.connect(control, timeout=timeout, clock=clock), pools, timeout, clock)


class PooledDriver:
    """All pools, as if they were one driver."""

    def __init__(
        self, control: Driver, pools: Sequence[str], timeout: float, clock: Callable[[], int] | None
    ) -> None:
        self._control = control
        self._stores = OpenStores(timeout=timeout, clock=clock)
        turns = itertools.cycle(range(len(pools)))
        service = PoolService(
            control,
            self._stores,
            Limits(),
            enabled=True,
            draw=lambda: (next(turns) + 0.5) / len(pools),
        )
        for number, uri in enumerate(pools):
            service.put(f"pool{number}", uri=uri, weight=1)
        self.messages = PooledMessages(control, service)

    @property
    def capabilities(self) -> Sequence[str]:
        return self._control.capabilities

    @property
    def records(self) -> RecordStore:
        return self._control.records

    @property
    def transfers(self) -> QueueTransfers:
        raise AssertionError("queues move between the pools, not out of the mix")

    def close(self) -> None:
        self._stores.close()
        self._control.close()


class PooledMessages:
    """The data plane of all pools."""

    def __init__(self, control: Driver, pools: PoolService) -> None:
        self._control = control
        self._pools = pools
        self._catalogue = Catalogue(control.records, pools, Limits())
        flavors = FlavorService(control.records, pools, Limits())
        self._queues = QueueService(self._catalogue, pools, flavors, Limits(), can_encrypt=False)
        self._letters = DeadLetterService(control.records, pools, self._catalogue, self._queues)

    def clock(self) -> int:
        return self._control.messages.clock()

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
        tickets: Sequence[NewMessage] | None = (),
    ) -> Posted:
        if create:
            self._queues.ensure(address)
        elif not self._catalogue.known(address).exists:
            raise QueueNotFound
        return self._catalogue.at(
            address,
            lambda place: place.store.post(
                address, messages, now=place.now, once=once, create=create, tickets=tickets
            ),
        )

    def subscribe(self, address: Address, stamp: str) -> None:
        self._queues.ensure(address)
        self._catalogue.at(address, lambda place: place.store.subscribe(address, stamp))

    def unsubscribe(self, address: Address, stamp: str) -> None:
        self._catalogue.at(address, lambda place: place.store.unsubscribe(address, stamp))

    def outboxes(self) -> Sequence[Address]:
        return ()

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        wanted = list(ids)
        return self._catalogue.at(address, lambda place: place.store.get(address, wanted, now=place.now))

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        return self._catalogue.at(address, lambda place: place.store.list(address, selection, now=place.now))

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        self._catalogue.at(
            address, lambda place: place.store.delete(address, message_id, now=place.now, claim_id=claim_id)
        )

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        wanted = [*ids]
        self._catalogue.at(
            address,
            lambda place: place.store.delete_many(address, wanted, now=place.now, claim_ids=claim_ids),
        )

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        return self._catalogue.at(address, lambda place: place.store.pop(address, limit, now=place.now))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        def step(place: Place) -> tuple[Claimed, Way | None]:
            letter = lease.dead_letter
            way = None
            if letter is not None and letter.address != address:
                way = self._letters.way_to(letter, address, place)
            terms = replace(lease, dead_letter=None if way is None else way.step)
            return place.store.claim(address, terms, now=place.now), way

        claimed, way = self._catalogue.at(address, step)
        if claimed.dead_lettered and way is not None:
            self._letters.deliver(way)
        return claimed

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        return self._catalogue.at(
            address, lambda place: place.store.read_claim(address, claim_id, now=place.now)
        )

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        if not self._catalogue.known(address).exists:
            raise ClaimNotFound
        self._catalogue.at(address, lambda place: place.store.renew(address, claim_id, lease, now=place.now))

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        self._catalogue.at(address, lambda place: place.store.release(address, claim_id, now=place.now))

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        return self._pools.driver(self._catalogue.known(address).pool).messages.watch(address, wake)

    def outlook(self, address: Address, *, now: int) -> Outlook:
        return self._catalogue.at(address, lambda place: place.store.outlook(address, now=place.now))

    def stats(self, address: Address, *, now: int) -> Stats:
        return self._catalogue.at(address, lambda place: place.store.stats(address, now=place.now))

    def purge(self, address: Address, *, now: int) -> None:
        self._queues.purge(address)

    def drop(self, address: Address) -> None:
        self._queues.delete(address)

    def expire(self, *, now: int, limit: int) -> int:
        done = 0
        for store in self._stores():
            done += store.expire(now=store.clock(), limit=max(1, limit - done))
        return done

    def totals(self, *, now: int) -> Stats:
        parts = [store.totals(now=store.clock()) for store in self._stores()]
        return Stats(free=sum(part.free for part in parts), claimed=sum(part.claimed for part in parts))

    def joins(self, one: Address, other: Address) -> bool:
        return True

    def durability(self) -> Durability:
        return self._control.messages.durability()

    def _stores(self) -> Sequence[Any]:
        return [self._pools.driver(name).messages for name in self._pools.names()]
