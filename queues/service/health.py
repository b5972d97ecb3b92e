"""Health: whether everything that is needed answers, and how the operations go."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from queues.errors import HermodError
from queues.models import Address, Lease, NewMessage, Record, Stats
from queues.ports import MessageStore, RecordStore, Router

#: Scratch queues of the health check belong to no tenant: a tenant's project is never empty.
_PROJECT = ""
_KIND = "health"


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

    def __init__(self, records: RecordStore, router: Router) -> None:
        self._records = records
        self._router = router

    def ping(self) -> None:
        """Return if every store answers.

        Raises StoreUnavailable.
        """
        self._records.fetch(_KIND, _PROJECT, "ping")
        for store in self._router.stores().values():
            store.stats(Address(project=_PROJECT, queue="ping"), now=store.clock())

    def report(self) -> dict[str, StoreHealth]:
        """Try every operation on each store, one message and one scratch queue each; by pool name."""
        return {name: self._examine(store) for name, store in self._router.stores().items()}

    def _examine(self, store: MessageStore) -> StoreHealth:
        trials = self._try_operations(store)
        volume = Stats()

        def count() -> None:
            nonlocal volume
            volume = store.totals(now=store.clock())

        reachable = _attempt(count).succeeded
        return StoreHealth(reachable=reachable, trials=trials, volume=volume)

    def _try_operations(self, store: MessageStore) -> dict[str, Trial]:
        address = Address(project=_PROJECT, queue=f"health-{secrets.token_hex(8)}")
        record = Record(kind=_KIND, scope=_PROJECT, name=address.queue, data={})
        message = NewMessage(body=b'"health"', ttl=60)
        lease = Lease(ttl=60, grace=60)
        now = store.clock()
        ids: list[str] = []
        claims: list[str] = []

        def post() -> None:
            ids.extend(store.post(address, [message] * 2, now=now, create=True).ids)

        def claim() -> None:
            taken = store.claim(address, lease, now=now).claim
            claims.extend([taken.id] if taken else [])

        def delete() -> None:
            for id_ in ids[:1]:
                store.delete(address, id_, now=now, claim_id=claims[0] if claims else None)

        def release() -> None:
            for claim_id in claims:
                store.release(address, claim_id, now=now)

        def forget() -> None:
            self._records.remove(record.kind, record.scope, record.name)
            store.drop(address)

        steps: dict[str, Callable[[], object]] = {
            "create_queue": lambda: self._records.insert(record),
            "post_messages": post,
            "list_messages": lambda: store.get(address, ids, now=now),
            "claim_messages": claim,
            "delete_messages": delete,
            "delete_claim": release,
            "bulk_delete_messages": lambda: store.delete_many(address, ids, now=now),
            "delete_queue": forget,
        }
        return {name: _attempt(step) for name, step in steps.items()}


def _attempt(step: Callable[[], object]) -> Trial:
    started = time.perf_counter()
    try:
        step()
    except HermodError as error:
        ref = secrets.token_hex(8)
        return Trial(succeeded=False, seconds=time.perf_counter() - started, ref=ref, error=error)
    return Trial(succeeded=True, seconds=time.perf_counter() - started)
