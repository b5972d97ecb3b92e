"""What a queued message takes up in the memory of Redis, all told."""

from __future__ import annotations

from typing import Any

import redis

from bench.bodies import messages
from bench.conditions import BODY_SIZE
from bench.report import Figure
from queues.models import Address, Lease
from queues.ports import Driver

GOAL = 600.0  # bytes per message of BODY_SIZE

_PROJECT = "bench-memory"
_POST = 1_000  # messages posted at once
_CLAIM = 20  # messages of each claim


def measure(driver: Driver, uri: str, *, size: int) -> list[Figure]:
    """Measure `size` messages in one queue, ready and claimed; nobody else may use the server meanwhile."""
    store, address = driver.messages, Address(project=_PROJECT, queue="queue")
    client: redis.Redis = redis.Redis.from_url(uri.partition("?")[0])
    store.post(address, messages(1), now=store.clock(), create=True)  # so that the scripts are there
    empty = _used(client)
    for _ in range(size // _POST):
        store.post(address, messages(_POST), now=store.clock())
    ready = _used(client)
    lease = Lease(ttl=43_200, grace=60, limit=_CLAIM)
    while store.claim(address, lease, now=store.clock()).claim is not None:
        pass
    claimed = _used(client)
    store.drop(address)
    client.close()
    return [
        _figure("ready", (ready - empty) / size, size, GOAL),
        _figure("claimed, 20 by each claim", (claimed - empty) / size, size, None),
    ]


def _figure(load: str, taken: float, size: int, goal: float | None) -> Figure:
    return Figure(
        table=f"Memory of Redis per message, {size:,} of {BODY_SIZE} bytes in a queue; the ratio is to the body",
        load=load,
        columns={"bytes": taken},
        ratio=taken / BODY_SIZE,
        at_most=None if goal is None else goal / BODY_SIZE,
    )


def _used(client: redis.Redis) -> int:
    info: dict[str, Any] = client.info("memory")
    used: int = info["used_memory"] - info.get("mem_clients_normal", 0) - info.get("mem_aof_buffer", 0)
    return used
