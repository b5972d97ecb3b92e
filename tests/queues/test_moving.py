"""Moving queues: what survives, and that at every step a queue is wholly in one place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from queues.errors import ClaimNotFound, MessageClaimed, NoPool, PoolInUse, QueueMoved, StoreUnavailable
from queues.models import Address, PoolState
from queues.service.pools import PoolChanges
from tests.queues.nodes import PATIENCE, Death, Node, World, opened
from tests.storage.probe import HOME

OTHER = Address(project="project", queue="other")
PAIRS = ["sqlite-redis", "redis-mongodb", "mongodb-sqlite"]
LONG = 100_000  # seconds; longer than any test lets pass
MINUTE = 60_000  # ms


@pytest.fixture
def kinds(request: pytest.FixtureRequest) -> list[str]:
    """What the pools are: two SQLite files, unless a test asks for others."""
    return str(getattr(request, "param", "sqlite-sqlite")).split("-")


@pytest.fixture
def world(tmp_path: Path, kinds: list[str]) -> Iterator[World]:
    with opened(tmp_path, *kinds) as made:
        yield made


@pytest.fixture
def skewed(tmp_path: Path, kinds: list[str]) -> Iterator[World]:
    """Pools whose clocks differ by a minute."""
    with opened(tmp_path, *kinds, skew=MINUTE) as made:
        yield made


def furnish(node: Node) -> list[str]:
    """Fill a queue in p1 with one of each: free, claimed, delayed, deleted; return the ids."""
    node.create()
    ids = node.post("a", "b", "c", "d", ttl=LONG)
    node.claim(2, ttl=LONG)
    ids += node.post("e", ttl=LONG, delay=LONG)
    ids += node.post("f", ttl=LONG - 1)
    node.service.messages.delete(HOME, ids[2])
    return [id_ for number, id_ in enumerate(ids) if number != 2]


def check_settled(world: World, before: list[tuple[object, ...]]) -> None:
    """A queue is wholly in one place, open, and nothing is left of any move."""
    node = world.node()
    home = node.pool()
    queue = node.catalogue.find(HOME)
    assert queue is not None
    assert queue.move is None
    assert node.everything() == before
    assert node.counts() == (len(before) - 2, 2)
    here = int(home[1:])
    assert (world.holdings(here), world.holdings(3 - here)) == (len(before), 0)
    assert world.notes("move") == []
    # And it can be used.
    (new,) = node.post("new")
    assert node.everything()[-1][0] == new
    node.service.messages.delete(HOME, new)


def check_residents(world: World) -> None:
    """Once nobody can be about to arrive any more, the notes of the pools are right."""
    world.advance(61)
    node = world.node()
    here = node.pool()
    there = "p2" if here == "p1" else "p1"
    assert node.service.moving.in_use(here)
    assert not node.service.moving.in_use(there)
    assert (len(world.notes("resident", here)), world.notes("resident", there)) == (1, [])


# --- what survives


@pytest.mark.parametrize("kinds", PAIRS, indirect=True)
def test_everything_about_a_queue_survives(world):
    node = world.node()
    ids = furnish(node)
    repeated = node.post_once("key", "g", "h")
    before = node.everything()

    assert node.move("p2") == len(before)

    assert node.pool() == "p2"
    assert [each[0] for each in before] == [*ids, *repeated]
    check_settled(world, before)
    assert node.post_once("key", "g", "h") == repeated
    check_residents(world)


@pytest.mark.parametrize("kinds", PAIRS, indirect=True)
def test_claims_and_markers_go_on(world):
    node = world.node()
    node.create()
    ids = node.post(*map(str, range(8)))
    claim = node.claim(3)
    node.service.messages.delete(HOME, ids[0], claim_id=claim.id)

    node.move("p2")

    probe = world.probe(2)
    assert [m.id for m in probe.page(marker=ids[0], include_claimed=True)] == ids[1:]
    assert [m.id for m in probe.page(marker=ids[3])] == ids[4:]
    assert [m.id for m in node.service.claims.read(HOME, claim.id).claim.messages] == ids[1:3]
    with pytest.raises(MessageClaimed):
        node.service.messages.delete(HOME, ids[1])
    node.service.messages.delete(HOME, ids[1], claim_id=claim.id)
    node.service.claims.renew(HOME, claim.id, ttl=100, grace=60)
    world.advance(99.999)
    assert node.claim(1).messages[0].id == ids[3]
    world.advance(0.001)
    assert node.claim(1).messages[0].id == ids[2], "a message whose claim is over is back in its place"
    with pytest.raises(ClaimNotFound):
        node.service.claims.read(HOME, claim.id)


@pytest.mark.parametrize("kinds", PAIRS, indirect=True)
def test_clocks_that_differ_change_nothing_of_what_is_left(skewed):
    """Instants are by each store's own clock; ages, delays, leases and ttls go on."""
    node = skewed.node()
    node.create()
    node.post("short", ttl=300)
    node.post("held", ttl=400)
    node.post("late", ttl=600, delay=50)
    node.post_once("key", "once")
    skewed.advance(10)
    node.claim(1, ttl=70)
    before = node.everything()

    node.move("p2")

    assert node.everything() == before
    skewed.advance(39.999)
    assert [each[1] for each in node.everything() if each[8]] == ["held", "once"]
    skewed.advance(0.001)
    assert [each[1] for each in node.everything() if each[8]] == ["held", "late", "once"]
    skewed.advance(29.999)
    assert node.counts() == (3, 1)
    skewed.advance(0.001)
    assert node.counts() == (4, 0)
    skewed.advance(219.999)
    assert node.bodies() == ["short", "held", "late", "once"]
    skewed.advance(0.001)
    assert node.bodies() == ["held", "late", "once"]
    assert len(node.post_once("key", "once")) == 1
    assert node.bodies() == ["held", "late", "once"], "a repeated post is still known"
    skewed.advance(310)
    node.post_once("key", "once")
    assert node.bodies()[-2:] == ["once", "once"], "until its window is over"


@pytest.mark.parametrize("kinds", PAIRS, indirect=True)
def test_what_changes_on_the_way_is_taken_along(world):
    """A client does something before each step of the move, as long as the queue is open."""
    node, mover = world.node(), world.node()
    furnish(node)
    posted: list[str] = []

    def use(number: int, step: str) -> None:
        if (
            step.startswith("p1.")
            and step not in ("p1.retire", "p1.reopen")
            and "p1.shut" not in mover.steps.taken[:-1]
        ):
            posted.extend(node.post(f"{number}-1", f"{number}-2"))
            node.claim(1, ttl=120)
            node.service.messages.delete(HOME, posted[-1])
            node.post_once(f"key{number}", f"{number}-3")

    mover.steps.before = use
    mover.move("p2")

    assert len(posted) >= 10
    assert node.pool() == "p2"
    bodies = [each[1] for each in node.everything()]
    numbers = sorted({int(body.split("-")[0]) for body in bodies if "-" in body})
    expected = [f"{number}-{part}" for number in numbers for part in (1, 3)]
    assert [body for body in bodies if "-" in body] == expected
    assert len(numbers) * 2 == len(posted)
    assert node.counts()[1] == 2 + len(numbers)
    assert world.holdings(1) == 0


@pytest.mark.parametrize("kinds", PAIRS, indirect=True)
def test_a_long_queue_goes_in_parts_there_and_back(world):
    node = world.node()
    node.create()
    for start in range(0, 1200, 200):
        node.post(*map(str, range(start, start + 200)))
    node.claim(600)
    before = node.everything()

    assert node.move("p2") == 1200
    assert node.everything() == before
    assert node.move("p1") == 1200, "although p1 remembers for a while that it has gone"
    assert node.everything() == before
    assert node.counts() == (600, 600)
    assert world.holdings(2) == 0


def test_a_queue_that_was_never_used_moves(world):
    node = world.node()
    node.create()

    assert node.move("p2") == 0

    assert node.pool() == "p2"
    assert node.bodies() == []
    node.post("a")
    assert world.holdings(2) == 1


def test_there_is_nothing_to_move(world):
    node = world.node()
    assert node.move("p2") is None
    node.create()
    assert node.move("p1") is None
    assert world.notes("move") == []


def test_an_old_store_sends_whoever_comes_to_the_new_one(world):
    """Another process still believes that the queue is where it was."""
    early, mover = world.node(), world.node()
    furnish(early)
    before = early.everything()

    mover.move("p2")

    with pytest.raises(QueueMoved):
        world.probe(1).stats()
    assert early.everything() == before


# --- calling it off


def test_it_stops_when_it_is_told_to(world):
    node, mover = world.node(), world.node()
    furnish(node)
    before = node.everything()
    stop = Event()
    mover.steps.before = lambda _, step: stop.set() if step == "p2.load" else None

    assert mover.move("p2", stop=stop) is None

    assert node.pool() == "p1"
    check_settled(world, before)
    check_residents(world)


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-redis"], indirect=True)
@pytest.mark.parametrize("step", ["p1.depart", "p2.admit", "p1.export", "p2.load", "p1.shut"])
def test_a_purge_on_the_way_is_not_lost(world, step):
    node, mover = world.node(), world.node()
    furnish(node)
    mover.steps.hold(step, lambda: node.service.queues.purge(HOME))

    mover.move("p2")

    assert node.bodies() == []
    assert node.counts() == (0, 0)
    assert node.post("new")
    assert node.bodies() == ["new"]
    assert world.holdings(1) + world.holdings(2) == 1
    assert world.notes("move") == []
    check_residents(world)


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-redis"], indirect=True)
@pytest.mark.parametrize(
    "step",
    ["p1.depart", "p2.admit", "p1.export", "p2.load", "p1.shut", "p2.arrive", "p2.reopen", "p1.retire"],
)
@pytest.mark.parametrize("draw", [0.0, 0.9])
def test_a_queue_that_is_deleted_and_made_anew_on_the_way_is_new(world, step, draw):
    """In either pool; nothing of the old queue comes back, and nothing of the new one is lost."""
    node, mover = world.node(draw=lambda: draw), world.node()
    old = furnish(world.node())

    def meanwhile() -> None:
        node.service.queues.delete(HOME)
        node.create()
        node.post("new")

    mover.steps.hold(step, meanwhile)
    mover.move("p2")

    assert node.pool() == ("p1" if draw < 0.5 else "p2")
    assert node.bodies() == ["new"]
    assert node.service.messages.get(HOME, old).messages == []
    assert world.holdings(1) + world.holdings(2) == 1
    assert world.notes("move") == []
    check_residents(world)


# --- stores that fail, and processes that die


def steps_of_a_move(world: World) -> list[str]:
    """Return what a move asks of the stores, having moved the queue there and back."""
    mover = world.node()
    mover.move("p2")
    taken = [*mover.steps.taken]
    mover.move("p1")
    return taken


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-redis"], indirect=True)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_store_may_fail_at_any_step(world, after):
    """The queue is here or there, at once; the next round finishes what was begun."""
    furnish(world.node())
    before = world.node().everything()
    count = len(steps_of_a_move(world))
    assert count > 15

    for step in range(count):
        mover = world.node()
        mover.steps.fail(step, after=after)
        to = "p2" if world.node().pool() == "p1" else "p1"
        try:
            mover.move(to)
        except StoreUnavailable:
            assert world.node().everything() == before, mover.steps.taken
            world.take_over()
            assert world.node().run()
        check_settled(world, before)
    check_residents(world)


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-redis", "mongodb-redis"], indirect=True)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", ["client", "mover"])
def test_a_process_may_die_at_any_step(world, after, first):
    """Whoever comes first finds the queue, a client or the next mover."""
    furnish(world.node())
    before = world.node().everything()
    count = len(steps_of_a_move(world))

    for step in range(count):
        mover = world.node()
        mover.steps.die(step, after=after)
        to = "p2" if world.node().pool() == "p1" else "p1"
        with pytest.raises(Death):
            mover.move(to)
        if first == "client":
            assert world.node().everything() == before, mover.steps.taken
        world.take_over()
        assert world.node().run()
        check_settled(world, before)
    check_residents(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_may_die_at_any_step_of_a_drain(world, after):
    """Another one goes on as soon as the lease has run out; not before."""
    furnish(world.node())
    before = world.node().everything()

    for step in itertools.count():
        world.node().service.moving.start("p1")
        mover, heir = world.node(draw=lambda: 0.9), world.node(draw=lambda: 0.9)
        mover.steps.die(step, after=after)
        try:
            mover.run()
        except Death:
            pass
        else:
            assert step > 30
            break
        world.take_over()
        assert heir.run()
        assert heir.pool() == "p2", mover.steps.taken
        check_settled(world, before)
        world.advance(61)
        assert heir.run()
        assert heir.service.moving.progress("p1").left == 0
        heir.service.moving.stop("p1")
        heir.move("p1")


# --- several movers


def test_one_process_at_a_time_moves_queues(world):
    node, mover, other = world.node(), world.node(draw=lambda: 0.9), world.node(draw=lambda: 0.9)
    furnish(node)
    node.service.moving.start("p1")
    answers: list[bool] = []
    mover.steps.hold("p2.load", lambda: answers.append(other.run()))

    assert mover.run()

    assert answers == [False]
    assert node.pool() == "p2"
    assert other.run(), "the lease was given back"


@pytest.mark.parametrize(
    "step",
    [
        *("p2.depart", "records.replace", "p1.depart", "p2.admit", "p1.export", "p2.load"),
        *("p1.shut", "p2.arrive", "p2.reopen", "p1.retire", "records.remove"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-redis"], indirect=True)
def test_a_mover_that_was_paused_finds_its_work_done(world, step, after):
    """Its lease ran out, another one called its move off or finished it, and drained the pool."""
    node, mover, other = world.node(), world.node(draw=lambda: 0.9), world.node(draw=lambda: 0.9)
    furnish(node)
    node.service.moving.start("p1")
    extra: list[str] = []

    def meanwhile() -> None:
        world.advance(31)
        assert other.run()
        assert other.pool() == "p2"
        extra.extend(other.post("meanwhile", ttl=LONG))

    mover.steps.hold(step, meanwhile, after=after)
    mover.run()

    assert extra
    assert world.node().bodies() == ["a", "b", "d", "e", "f", "meanwhile"]
    check_settled(world, world.node().everything())
    check_residents(world)
    assert world.node().service.moving.progress("p1").left == 0


@pytest.mark.parametrize("step", ["p1.export", "p2.load", "p1.shut", "p2.arrive"])
def test_a_mover_that_was_paused_finds_its_move_called_off(world, step):
    """And the pool is not drained any more."""
    node, mover, other = world.node(), world.node(draw=lambda: 0.9), world.node(draw=lambda: 0.9)
    furnish(node)
    before = node.everything()
    node.service.moving.start("p1")

    def meanwhile() -> None:
        node.service.moving.stop("p1")
        world.advance(31)
        assert other.run()

    mover.steps.hold(step, meanwhile)
    mover.run()

    assert node.pool() == "p1"
    check_settled(world, before)
    check_residents(world)


def test_a_client_that_waits_too_long_calls_a_move_off(world):
    """A mover dies with the queue shut; nobody comes after it."""
    node, mover = world.node(), world.node()
    furnish(node)
    before = node.everything()
    mover.steps.die(0, after=False)
    mover.steps.before = lambda _, step: _die() if step == "p2.arrive" else None

    with pytest.raises(Death):
        mover.move("p2")
    started = time.monotonic()

    assert node.everything() == before
    assert time.monotonic() - started < 20 * PATIENCE
    assert node.pool() == "p1"
    node.post("new")


def _die() -> None:
    raise Death


# --- draining


def test_a_drain_takes_every_queue_and_says_how_far_it_is(world):
    node, mover = world.node(), world.node(draw=lambda: 0.9)
    addresses = [Address(project=f"project{number % 2}", queue=f"q{number}") for number in range(7)]
    for number, address in enumerate(addresses):
        node.create(address)
        if number:
            node.post(*map(str, range(number)), address=address)
    moving = node.service.moving

    begun = moving.start("p1")
    assert (begun.active, begun.left, begun.queues, begun.messages, begun.rate) == (True, 7, 0, 0, 0.0)
    mover.steps.after = lambda _, step: world.advance(1) if step == "p2.arrive" else None
    mover.run()

    done = moving.progress("p1")
    assert (done.active, done.left, done.queues, done.messages) == (True, 0, 7, 21)
    assert done.rate == pytest.approx(3.0, rel=0.01)
    assert {node.pool(address) for address in addresses} == {"p2"}
    for number, address in enumerate(addresses):
        assert node.bodies(address) == [*map(str, range(number))]


def test_a_pool_that_is_drained_gets_no_queue_and_can_be_removed(world):
    node = world.node(draw=lambda: 0.0)
    node.create()
    node.service.moving.start("p1")
    node.create(OTHER)
    assert node.pool(OTHER) == "p2"
    with pytest.raises(PoolInUse):
        node.service.pools.remove("p1", in_use=lambda: node.service.moving.in_use("p1"))

    assert node.run()
    node.service.pools.remove("p1", in_use=lambda: node.service.moving.in_use("p1"))

    assert [pool.name for pool in node.service.pools.all()] == ["p2"]
    assert world.node().post("still")
    assert world.node().bodies() == ["still"]


def test_a_refused_removal_changes_nothing_about_a_drain(world):
    node = world.node()
    node.create()
    node.service.moving.start("p1")

    with pytest.raises(PoolInUse):
        node.service.pools.remove("p1", in_use=lambda: node.service.moving.in_use("p1"))

    assert node.service.pools.get("p1").state is PoolState.DRAINING


def test_a_queue_that_is_made_while_its_pool_is_drained_is_not_left_behind(world):
    """It was chosen a moment before; the drain sees its note."""
    late = world.node(draw=lambda: 0.0)
    mover = world.node(draw=lambda: 0.9)
    answers: list[bool] = []

    def drain() -> None:
        mover.service.moving.start("p1")
        answers.append(mover.run())
        answers.append(mover.service.moving.in_use("p1"))

    late.steps.hold("records.insert", drain, after=True)
    late.create()

    assert late.pool() == "p2", "it looks again whether the pool is open"
    assert answers == [True, True]
    world.advance(61)
    assert not mover.service.moving.in_use("p1")


def test_a_drain_can_be_stopped_and_goes_on_where_it_was(world):
    node, mover = world.node(), world.node(draw=lambda: 0.9)
    for name in "abc":
        node.create(Address(project="p", queue=name))
        node.post("x", address=Address(project="p", queue=name))
    node.service.moving.start("p1")

    def stop(_number: int, step: str) -> None:
        if step == "p1.retire":
            node.service.moving.stop("p1")

    mover.steps.after = stop
    mover.run()
    stopped = node.service.moving.progress("p1")
    mover.steps.after = lambda _number, _step: None
    assert (stopped.active, stopped.left, stopped.queues) == (False, 2, 1)
    assert mover.run()
    assert node.service.moving.progress("p1").left == 2, "nobody goes on by himself"

    node.service.moving.start("p1")
    mover.run()

    assert (node.service.moving.progress("p1").left, node.service.moving.progress("p1").queues) == (0, 2)


def test_a_drain_says_that_there_is_nowhere_to_go(world):
    node = world.node()
    node.create()
    node.service.pools.update("p2", PoolChanges(weight=0))
    node.service.moving.start("p1")

    node.run()

    found = node.service.moving.progress("p1")
    assert (found.active, found.left, found.queues) == (True, 1, 0)
    assert found.problem == str(NoPool())
    node.service.pools.update("p2", PoolChanges(weight=1))
    node.run()
    found = node.service.moving.progress("p1")
    assert (found.left, found.queues, found.problem) == (0, 1, None)


def test_a_drain_says_that_a_store_is_down_and_goes_on_with_the_others(tmp_path):
    with opened(tmp_path, "sqlite", "sqlite", "sqlite") as world:
        node, mover = world.node(), world.node(draw=iter([0.0, 0.9, 0.9]).__next__)
        for name in "abc":
            node.create(Address(project="p", queue=name))
        node.service.moving.start("p1")

        def fail(_number: int, step: str) -> None:
            if step.startswith("p2."):
                raise StoreUnavailable("p2 is down")

        mover.steps.before = fail
        mover.run()
        found = node.service.moving.progress("p1")
        assert (found.left, found.queues, found.problem) == (1, 2, "p2 is down")

        mover.steps.before = lambda _number, _step: None
        again = world.node(draw=lambda: 0.0)
        assert again.run()
        assert {node.pool(Address(project="p", queue=name)) for name in "abc"} == {"p2", "p3"}
        assert world.notes("move") == []


def test_a_drain_stays_within_the_flavor(tmp_path):
    with opened(tmp_path, "sqlite", "sqlite", "sqlite") as world:
        node = world.node(draw=lambda: 0.0)
        node.service.flavors.put("project", "gold", ["p1", "p3"])
        node.create(_flavor="gold")
        assert node.pool() == "p1"

        node.service.moving.start("p1")
        node.run()

        assert node.pool() == "p3"


# --- asking for another flavor


def test_a_queue_that_asks_for_another_flavor_is_moved_once(world):
    node = world.node()
    node.service.flavors.put("project", "gold", ["p2"])
    node.create()
    node.post("a")

    node.service.queues.update(HOME, [{"op": "add", "path": "/metadata/_flavor", "value": "gold"}])
    assert node.pool() == "p1"
    assert node.run()

    assert (node.pool(), node.bodies(), world.notes("wish")) == ("p2", ["a"], [])
    node.service.queues.update(HOME, [{"op": "remove", "path": "/metadata/_flavor"}])
    assert node.run()
    assert (node.pool(), node.bodies(), world.notes("wish")) == ("p1", ["a"], [])


def test_a_wish_waits_for_a_store_that_is_down(world):
    node = world.node()
    node.service.flavors.put("project", "gold", ["p2"])
    node.create()
    node.service.queues.update(HOME, [{"op": "add", "path": "/metadata/_flavor", "value": "gold"}])
    node.steps.fail(len(node.steps.taken), after=False)

    def fail(_number: int, step: str) -> None:
        if step.startswith("p2."):
            raise StoreUnavailable

    node.steps.before = fail
    with pytest.raises(StoreUnavailable):
        node.run()
    assert (node.pool(), len(world.notes("wish"))) == ("p1", 1)

    assert world.node().run()
    assert (world.node().pool(), world.notes("wish")) == ("p2", [])


def test_a_move_that_cannot_be_cleared_does_not_keep_others_waiting(world):
    """The source goes down before it can be told; the queue is used at its new place all the while."""
    node, mover = world.node(), world.node()
    furnish(node)
    before = node.everything()

    def fail(_number: int, step: str) -> None:
        if step == "p1.retire":
            raise StoreUnavailable

    mover.steps.before = fail
    with pytest.raises(StoreUnavailable):
        mover.move("p2")

    assert node.everything() == before
    assert len(world.notes("move")) == 1
    assert node.service.moving.in_use("p1")
    world.take_over()
    assert world.node().run()
    check_settled(world, before)
    check_residents(world)
