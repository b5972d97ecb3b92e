"""Cost of every operation by what is queued: 1,000 messages against many.

Each population is in a store of its own, so that small and large are not on the
same pages of one file.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from bench import steps
from bench.bodies import PRODUCER, messages
from bench.measure import Cost, Load, interleaved
from bench.populations import KINDS, LEASE, Population, populate, post
from bench.report import Figure
from queues.models import Address, Once, Selection
from queues.ports import Driver, MessageStore

SMALL = 1_000
GOAL = 1.2  # times the cost at SMALL

_PAGE = Selection(limit=10)
_OTHER_CLIENT = "f" * 32
_PURGES = 6  # rounds of purge at most, for behind each the queue is filled anew
_PURGED = 1_200_000  # about so many messages are purged of each kind

#: A load on a population; see `bench.measure.Load`.
Operation: TypeAlias = Callable[[Population], Iterator[None]]

_chance = random.Random(1)


def post_one(p: Population) -> Iterator[None]:
    """Post a message."""
    batch, now = messages(1), p.store.clock()
    yield
    posted = p.store.post(p.address, batch, now=now)
    yield
    p.store.delete(p.address, posted.ids[0], now=now)


def post_one_once(p: Population) -> Iterator[None]:
    """Post a message with an idempotency key."""
    batch, now = messages(1), p.store.clock()
    once = Once(key=f"{_chance.getrandbits(64):x}", fingerprint=b"0123456789abcdef", window=600)
    yield
    posted = p.store.post(p.address, batch, now=now, once=once)
    yield
    p.store.delete(p.address, posted.ids[0], now=now)


def claim_and_release(p: Population) -> Iterator[None]:
    """Claim ten messages and let them go."""
    now = p.store.clock()
    yield
    claimed = p.store.claim(p.address, LEASE, now=now)
    assert claimed.claim is not None
    p.store.release(p.address, claimed.claim.id, now=now)
    yield
    assert len(claimed.claim.messages) == LEASE.limit


def claim_and_bury(p: Population) -> Iterator[None]:
    """Claim ten messages, while ten others go to the dead-letter queue."""
    now = p.store.clock()
    doomed = p.store.claim(p.address, LEASE, now=now).claim
    assert doomed is not None
    p.store.release(p.address, doomed.id, now=now)
    lease = replace(LEASE, dead_letter=p.dead_letters)
    yield
    claimed = p.store.claim(p.address, lease, now=now)
    yield
    assert claimed.claim is not None
    p.store.release(p.address, claimed.claim.id, now=now)
    first = p.free.index(doomed.messages[0].id)
    del p.free[first : first + claimed.dead_lettered]
    p.post(claimed.dead_lettered)


def read_claim(p: Population) -> Iterator[None]:
    """Read a claim on ten messages."""
    now = p.store.clock()
    yield
    p.store.read_claim(p.address, p.claim_id, now=now)
    yield


def renew(p: Population) -> Iterator[None]:
    """Renew a claim on ten messages."""
    now = p.store.clock()
    yield
    p.store.renew(p.address, p.claim_id, LEASE, now=now)
    yield


def pop_and_post(p: Population) -> Iterator[None]:
    """Pop a message, and post one."""
    batch, now = messages(1), p.store.clock()
    yield
    (popped,) = p.store.pop(p.address, 1, now=now).messages
    posted = p.store.post(p.address, batch, now=now)
    yield
    p.free.remove(popped.id)
    p.free += posted.ids


def get(p: Population) -> Iterator[None]:
    """Get a message by its id, anywhere in the queue."""
    id_, now = _chance.choice(p.free), p.store.clock()
    yield
    found = p.store.get(p.address, [id_], now=now)
    yield
    assert len(found) == 1


def delete(p: Population) -> Iterator[None]:
    """Delete a message by its id, anywhere in the queue."""
    id_, now = p.free.pop(_chance.randrange(len(p.free))), p.store.clock()
    yield
    p.store.delete(p.address, id_, now=now)
    yield
    p.post(1)


def stats(p: Population) -> Iterator[None]:
    """Ask for the statistics."""
    now = p.store.clock()
    yield
    p.store.stats(p.address, now=now)
    yield


def purge(p: Population) -> Iterator[None]:
    """Purge the queue."""
    now = p.store.clock()
    p.post(1)  # so that what the filling left to do has been done
    yield
    p.store.purge(p.address, now=now)
    yield
    p.refill()


def list_page(p: Population, *, selection: Selection, found: int = 10) -> Iterator[None]:
    """List a page."""
    now = p.store.clock()
    yield
    page = p.store.list(p.address, selection, now=now)
    yield
    assert len(page) == found


def list_middle(p: Population) -> Iterator[None]:
    """List the page behind a message in the middle."""
    return list_page(p, selection=replace(_PAGE, marker=p.free[len(p.free) // 2]))


#: Everything that is promised to cost the same at any depth.
OPERATIONS: Mapping[str, Operation] = {
    "post 1": post_one,
    "post 1 with a key": post_one_once,
    "claim 10 + release": claim_and_release,
    "claim 10, bury 10": claim_and_bury,
    "read a claim of 10": read_claim,
    "renew a claim of 10": renew,
    "pop 1 + post 1": pop_and_post,
    "get by id": get,
    "delete by id": delete,
    "stats": stats,
    "list, first page": partial(list_page, selection=_PAGE),
    "list, page in the middle": list_middle,
    "list, claimed and delayed too": partial(
        list_page, selection=Selection(limit=10, include_claimed=True, include_delayed=True)
    ),
    "list, own hidden, none are": partial(
        list_page, selection=Selection(limit=10, hide_client=_OTHER_CLIENT)
    ),
    "list, own hidden, all are": partial(
        list_page, selection=Selection(limit=10, hide_client=PRODUCER), found=0
    ),
    "purge": purge,
}


#: What the first to come pays for, once, when much falls due at the same instant.
DEBTS: Mapping[str, tuple[str, int]] = {
    "messages expire": ("ready", 86_400),
    "claims end, of 20 messages each": ("half of them claimed", 43_200),
    "delays end": ("delayed, in front of those that are ready", 43_200),
}


def measure(
    open_store: Callable[[str], Driver],
    *,
    size: int,
    rounds: int,
    kinds: Sequence[str] = tuple(KINDS),
    without: Collection[str] = (),
) -> list[Figure]:
    """Compare `size` messages of every kind with `SMALL` ready ones, in all operations but those left out.

    `open_store` returns the store for a population, by its name.
    """
    small_store = open_store("small")
    stores = [open_store(f"large{number}") for number in range(len(kinds))]
    for store in (small_store, *stores):
        _warm_up(store)
    small = populate(small_store.messages, _address("small"), "ready", SMALL)
    large = [
        populate(store.messages, _address(f"large{number}"), kind, size)
        for number, (kind, store) in enumerate(zip(kinds, stores, strict=True))
    ]
    figures: dict[str, list[Figure]] = {kind: [] for kind in kinds}
    for name, operation in OPERATIONS.items():
        if name in without:
            continue
        loads: Sequence[Load] = [partial(operation, population) for population in (small, *large)]
        purges = max(2, min(_PURGES, _PURGED // size))
        costs = interleaved(loads, min(rounds, purges) if operation is purge else rounds)
        counts = [steps.count(s, load) for s, load in zip((small_store, *stores), loads, strict=True)]
        for kind, cost, count in zip(kinds, costs[1:], counts[1:], strict=True):
            title = f"Depth: {size:,} messages {kind}, against {SMALL:,} ready"
            figures[kind].append(_figure(title, name, (costs[0], counts[0]), (cost, count)))
    for population in (small, *large):
        population.drop()
    return [figure for group in figures.values() for figure in group]


def measure_debts(open_store: Callable[[str], Driver], *, size: int) -> list[Figure]:
    """Time the first look at a queue in which everything has fallen due at once."""
    figures = []
    for number, (name, (kind, seconds)) in enumerate(DEBTS.items()):
        store = open_store(f"debts{number}").messages
        small, large = (_debt(store, kind, each, seconds) for each in (SMALL, size))
        figures.append(
            Figure(
                table=f"Debts: the first statistics after everything falls due, {size:,} messages"
                f" against {SMALL:,}; the ratio is per message",
                load=name,
                columns={"small, ms": small * 1000, "large, ms": large * 1000},
                ratio=(large / size) / (small / SMALL),
            )
        )
    return figures


def _debt(store: MessageStore, kind: str, size: int, seconds: int) -> float:
    population = populate(store, _address(f"debt{size}"), kind, size)
    then = store.clock() + seconds * 1000 + 1
    start = time.perf_counter()
    store.stats(population.address, now=then)
    taken = time.perf_counter() - start
    population.drop()
    return taken


def _warm_up(store: Driver) -> None:
    """Let the files grow to the size that they have in use; a sync of a file that grows takes longer."""
    address, messages = _address("warm-up"), store.messages
    post(messages, address, 10_000)
    messages.drop(address)
    while messages.expire(now=messages.clock(), limit=10_000):
        pass


def _address(name: str) -> Address:
    return Address(project=f"bench-{_chance.getrandbits(64):x}", queue=name)


def _figure(title: str, name: str, small: tuple[Cost, int | None], large: tuple[Cost, int | None]) -> Figure:
    by_clock = large[0].wall / small[0].wall
    by_cpu = large[0].cpu / small[0].cpu
    embedded = large[1] is not None
    return Figure(
        table=title,
        load=name,
        columns={
            "small, µs": small[0].wall,
            "large, µs": large[0].wall,
            "small, cpu µs": small[0].cpu,
            "large, cpu µs": large[0].cpu,
            "small, steps": small[1],
            "large, steps": large[1],
            "ratio by clock": by_clock,
        },
        # Where the engine runs in this thread, its time is the thread's, and the disk's is the same at any depth.
        ratio=by_cpu if embedded else by_clock,
        at_most=GOAL,
    )
