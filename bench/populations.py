"""Queues filled in various ways, to see whether what lies in a queue makes its operations dearer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bench.bodies import messages
from queues.models import Address, Claim, DeadLetter, Lease
from queues.ports import MessageStore

#: Terms that outlive every measurement.
LEASE = Lease(ttl=43_200, grace=60, limit=10)

_POST = 10_000  # messages posted at once while filling
_CLAIM = 20  # messages of each claim while filling
_DELAY = 43_200  # seconds
_READY = 1_000  # at most so many messages are left to work with beside those that are delayed or elsewhere


@dataclass(kw_only=True)
class Population:
    """A queue to measure, filled with `size` messages in some state."""

    store: MessageStore
    address: Address
    size: int
    fill: Callable[[Population], None]
    free: list[str] = field(default_factory=list)  # ids that no claim holds, in queue order
    claim: Claim | None = None  # one on ten messages, for what works on a claim

    def beside(self, what: str) -> Address:
        """Return the address of another queue that belongs to this one."""
        return replace(self.address, queue=f"{self.address.queue}-{what}")

    def drop(self) -> None:
        """Remove everything."""
        for address in (self.address, self.beside("dead"), self.beside("elsewhere")):
            self.store.drop(address)

    @property
    def dead_letters(self) -> DeadLetter:
        """Where messages go that were claimed before."""
        return DeadLetter(address=self.beside("dead"), max_claims=1)

    @property
    def claim_id(self) -> str:
        """The id of that claim."""
        assert self.claim is not None
        return self.claim.id

    def refill(self) -> None:
        """Fill the queue, which is empty, and take the claim."""
        self.free = []
        self.fill(self)
        self.claim = self.lease(LEASE)

    def post(self, count: int, *, delay: int = 0) -> None:
        """Post so many messages."""
        self.free += post(self.store, self.address, count, delay=delay)

    def lease(self, lease: Lease) -> Claim:
        """Claim the first messages that are free."""
        claim = self.store.claim(self.address, lease, now=self.store.clock()).claim
        assert claim is not None
        held = {message.id for message in claim.messages}
        first = self.free.index(claim.messages[0].id)
        kept = [id_ for id_ in self.free[first : first + len(held)] if id_ not in held]
        self.free[first : first + len(held)] = kept
        return claim


def post(
    store: MessageStore,
    address: Address,
    count: int,
    *,
    now: int | None = None,
    ttl: int = 86_400,
    delay: int = 0,
) -> list[str]:
    """Post so many messages, many at once, and return their ids."""
    now = store.clock() if now is None else now
    ids: list[str] = []
    for start in range(0, count, _POST):
        batch = messages(min(_POST, count - start), ttl=ttl, delay=delay)
        ids += store.post(address, batch, now=now, create=True).ids
    return ids


def populate(store: MessageStore, address: Address, kind: str, size: int) -> Population:
    """Return a filled queue of one of the `KINDS`."""
    population = Population(store=store, address=address, size=size, fill=KINDS[kind])
    population.refill()
    return population


def _ready(population: Population) -> None:
    population.post(population.size)


def _half_claimed(population: Population) -> None:
    population.post(population.size)
    lease = replace(LEASE, limit=_CLAIM)
    for _ in range(population.size // 2 // _CLAIM):
        population.lease(lease)


def _delayed(population: Population) -> None:
    population.post(population.size, delay=_DELAY)
    population.post(min(_READY, population.size))


def _overdue_elsewhere(population: Population) -> None:
    population.post(min(_READY, population.size))
    elsewhere = population.beside("elsewhere")
    population.store.drop(elsewhere)
    post(population.store, elsewhere, population.size, now=population.store.clock() - 120_000, ttl=60)


def _dead(population: Population) -> None:
    address = population.dead_letters.address
    population.store.drop(address)
    post(population.store, address, population.size, now=population.store.clock() - 120_000)
    population.post(min(_READY, population.size))


#: How a queue can be filled, by what is then in it.
KINDS: Mapping[str, Callable[[Population], None]] = {
    "ready": _ready,
    "half of them claimed": _half_claimed,
    "delayed, in front of those that are ready": _delayed,
    "expired in another queue, not yet reclaimed": _overdue_elsewhere,
    "in the dead-letter queue": _dead,
}
