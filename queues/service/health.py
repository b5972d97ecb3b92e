"""Health: whether everything that is needed answers, and how the operations go."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from queues.errors import HermodError
from queues.models import Address, Lease, NewMessage, Record, Stats
from queues.ports import MessageStore, RecordStore
from queues.service.pools import PoolService

#: Scratch queues of the health check belong to no tenant: a tenant's project is never empty.
_PROJECT = ""
_KIND = "health"

_TOO_LONG = 1.0  # seconds for an operation to fail

#: What is tried.
OPERATIONS = (
    "create_queue",
    "post_messages",
    "list_messages",
    "claim_messages",
    "delete_messages",
    "delete_claim",
    "bulk_delete_messages",
    "delete_queue",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """How one operation went."""

    succeeded: bool
    seconds: float  # how long it took
    ref: str | None = None  # id of a failure, to be found in the log
    error: HermodError | None = None  # what failed


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreHealth:
    """How one message store is."""

    reachable: bool
    trials: dict[str, Trial]  # by operation
    volume: Stats  # messages of all its queues


class HealthService:
    """Asks the stores how they are."""

    def __init__(self, records: RecordStore, pools: PoolService) -> None:
        self._records = records
        self._pools = pools

    def ping(self) -> None:
        """Return if the store of the records answers, without which nothing goes; a pool may be down.

        Raises StoreUnavailable.
        """
        self._records.fetch(_KIND, _PROJECT, "ping")
        store = self._pools.driver("").messages
        store.stats(Address(project=_PROJECT, queue="ping"), now=store.clock())

    def report(self) -> dict[str, StoreHealth]:
        """Try every operation on each pool, with one scratch queue each; by name.

        "" is the default store, of a service without pools. Raises StoreError if the store
        of the records does not answer.
        """
        self._records.fetch(_KIND, _PROJECT, "ping")
        names = [name for name in self._pools.names() if name] or [""]
        with ThreadPoolExecutor(
            len(names)
        ) as threads:  # one that is down keeps the others waiting for nobody
            return dict(zip(names, threads.map(self._examine, names), strict=True))

    def _examine(self, name: str) -> StoreHealth:
        found: list[MessageStore] = []
        opened = _attempt(lambda: found.append(self._pools.driver(name).messages))
        if not found:
            return StoreHealth(reachable=False, trials=dict.fromkeys(OPERATIONS, opened), volume=Stats())
        (store,) = found
        volumes: list[Stats] = []
        counted = _attempt(lambda: volumes.append(store.totals(now=store.clock())))
        volume = volumes[0] if volumes else Stats()
        return StoreHealth(reachable=counted.succeeded, trials=self._try_operations(store), volume=volume)

    def _try_operations(self, store: MessageStore) -> dict[str, Trial]:
        address = Address(project=_PROJECT, queue=f"health-{secrets.token_hex(8)}")
        record = Record(kind=_KIND, scope=_PROJECT, name=address.queue, data={})
        message = NewMessage(body=b'"health"', ttl=60)
        lease = Lease(ttl=60, grace=60)
        ids: list[str] = []
        claims: list[str] = []

        def post() -> None:
            ids.extend(store.post(address, [message] * 2, now=store.clock(), create=True).ids)

        def claim() -> None:
            taken = store.claim(address, lease, now=store.clock()).claim
            claims.extend([taken.id] if taken else [])

        def delete() -> None:
            for id_ in ids[:1]:
                store.delete(address, id_, now=store.clock(), claim_id=claims[0] if claims else None)

        def release() -> None:
            for claim_id in claims:
                store.release(address, claim_id, now=store.clock())

        def forget() -> None:
            self._records.remove(record.kind, record.scope, record.name)
            store.drop(address)

        steps: dict[str, Callable[[], object]] = {
            "create_queue": lambda: self._records.insert(record),
            "post_messages": post,
            "list_messages": lambda: store.get(address, ids, now=store.clock()),
            "claim_messages": claim,
            "delete_messages": delete,
            "delete_claim": release,
            "bulk_delete_messages": lambda: store.delete_many(address, ids, now=store.clock()),
            "delete_queue": forget,
        }
        trials: dict[str, Trial] = {}
        for name, step in steps.items():
            trials[name] = trial = _attempt(step)
            if not trial.succeeded and trial.seconds > _TOO_LONG:  # the rest would take as long
                return {**dict.fromkeys(OPERATIONS, trial), **trials}
        return trials


def _attempt(step: Callable[[], object]) -> Trial:
    started = time.perf_counter()
    try:
        step()
    except HermodError as error:
        ref = secrets.token_hex(8)
        return Trial(succeeded=False, seconds=time.perf_counter() - started, ref=ref, error=error)
    return Trial(succeeded=True, seconds=time.perf_counter() - started)
