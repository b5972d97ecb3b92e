"""Dead letters on their way to a queue in another pool: exactly once, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from queues.errors import StoreUnavailable
from queues.models import Address, Claim
from tests.queues.nodes import Node, World, opened
from tests.storage.probe import HOME, Probe

DEAD = Address(project=HOME.project, queue="dead")
LETTERS = {"_dead_letter_queue": "dead", "_max_claim_count": 1}
SKEW = 60_000  # ms


@pytest.fixture
def kinds(request: pytest.FixtureRequest) -> list[str]:
    return str(getattr(request, "param", "sqlite-sqlite")).split("-")


@pytest.fixture
def world(tmp_path: Path, kinds: list[str]) -> Iterator[World]:
    """Two pools whose clocks differ by a minute."""
    with opened(tmp_path, *kinds, skew=SKEW) as made:
        yield made


def divide(world: World, **metadata: Any) -> Node:
    """Declare a queue in p1 whose dead-letter queue is in p2; return a process."""
    world.node(draw=lambda: 0.9).create(DEAD)
    node = world.node()
    node.create(**{**LETTERS, **metadata})
    assert (node.pool(), node.pool(DEAD)) == ("p1", "p2")
    return node


def claim(node: Node) -> Claim | None:
    """Claim as a client does, for a minute."""
    seen = node.service.claims.create(HOME, ttl=60, grace=60, limit=20)
    return None if seen is None else seen.claim


def wear_out(world: World, node: Node, *bodies: str, ttl: int = 3600) -> list[str]:
    """Post messages that the next claim finds to have been claimed too often."""
    ids = node.post(*bodies, ttl=ttl)
    assert claim(node) is not None
    world.advance(60)
    return ids


def dead(node: Node) -> list[str]:
    return node.bodies(DEAD)


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "sqlite-redis", "redis-mongodb"], indirect=True)
def test_they_arrive_once_and_in_order_in_another_store(world):
    node = divide(world)
    bodies = [str(number) for number in range(45)]
    node.post(*bodies)
    for _ in range(3):
        assert claim(node) is not None
    world.advance(60)
    node.post("fresh")

    while (taken := claim(node)) is not None:
        assert [message.body for message in taken.messages] == [b"fresh"]

    assert dead(node) == bodies
    assert [each[7] for each in node.everything(DEAD)] == [0] * 45, "nobody has claimed them there"
    assert node.bodies() == ["fresh"]
    assert (world.holdings(1), world.holdings(2)) == (1, 45)


@pytest.mark.parametrize("kinds", ["sqlite-redis", "mongodb-sqlite"], indirect=True)
def test_they_keep_what_is_left_of_their_lives(world):
    """By the clock of wherever they are."""
    node = divide(world)
    wear_out(world, node, "a", ttl=500)
    claim(node)

    (letter,) = node.everything(DEAD)
    assert (letter[2], letter[3]) == (world.clock.now - 60_000, world.clock.now + 440_000)
    world.advance(439.999)
    assert dead(node) == ["a"]
    world.advance(0.001)
    assert dead(node) == []


@pytest.mark.parametrize("kinds", ["sqlite-redis"], indirect=True)
def test_they_get_the_ttl_of_the_queue(world):
    node = divide(world, _dead_letter_queue_messages_ttl=100)
    wear_out(world, node, "a", ttl=5000)
    claim(node)

    (letter,) = node.everything(DEAD)
    assert letter[3] == world.clock.now + 100_000


def test_one_that_expires_on_its_way_does_not_arrive(world):
    node = divide(world)
    wear_out(world, node, "a", ttl=100)
    sick(node, world, "post", after=False)
    claim(node)
    assert dead(world.node()) == []
    world.advance(100)

    world.node().service.dead_letters.sweep_all(Event())

    assert dead(world.node()) == []
    assert world.holdings(1) == 0


class Sick:
    """The messages of a store, of which some methods fail, before or after they take effect, a number of times."""

    def __init__(self, part: Any, method: str, *, after: bool, times: int = 1) -> None:
        self._part = part
        self._method = method
        self._after = after
        self.times = times

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)
        if name != self._method:
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            failing, self.times = self.times > 0, self.times - 1
            if failing and not self._after:
                raise StoreUnavailable
            answer = method(*arguments, **named)
            if failing:
                raise StoreUnavailable
            return answer

        return call


def sick(node: Node, world: World, method: str, *, after: bool, pool: str | None = None) -> None:
    """Let one call of a method of a pool's store fail, as this process sees it."""
    pool = pool or ("p2" if method == "post" else "p1")
    driver: Any = node.service.pools.driver(pool)
    driver.messages = Sick(driver.messages, method, after=after)


@pytest.mark.parametrize("kinds", ["sqlite-sqlite", "redis-sqlite"], indirect=True)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["post", "delete_many", "list"])
def test_what_a_crash_leaves_behind_the_janitor_finishes(world, method, after):
    """A process ends between two steps: nothing is lost, and nothing arrives twice."""
    node = divide(world)
    wear_out(world, node, "a", "b", "c")
    sick(node, world, method, after=after)

    assert claim(node) is None

    heir = world.node()
    heir.service.dead_letters.sweep_all(Event())
    heir.service.dead_letters.sweep_all(Event())
    assert dead(heir) == ["a", "b", "c"]
    assert (world.holdings(1), world.holdings(2)) == (0, 3)


def test_what_was_read_from_the_dead_letter_queue_meanwhile_does_not_come_back(world):
    """The post took effect, the deletion did not; somebody deals with the letters before the janitor comes."""
    node = divide(world)
    wear_out(world, node, "a", "b")
    sick(node, world, "delete_many", after=False)
    claim(node)
    assert dead(world.node()) == ["a", "b"]
    for each in world.node().everything(DEAD):
        world.node().service.messages.delete(DEAD, each[0])

    world.node().service.dead_letters.sweep_all(Event())

    assert dead(world.node()) == []
    assert world.holdings(1) == 0


def test_a_pool_that_is_down_keeps_its_letters_until_it_is_up(world):
    node = divide(world)
    wear_out(world, node, "a")
    node.post("fresh")
    driver: Any = node.service.pools.driver("p2")
    well = driver.messages
    driver.messages = Sick(well, "post", after=False, times=1000)

    taken = claim(node)

    assert taken is not None, "claims go on"
    assert [message.body for message in taken.messages] == [b"fresh"]
    with pytest.raises(StoreUnavailable):
        node.service.dead_letters.sweep_all(Event())
    driver.messages = well
    node.service.dead_letters.sweep_all(Event())
    assert dead(node) == ["a"]


def test_a_dead_letter_queue_that_is_not_there_is_made_in_the_same_pool(world):
    node = world.node()
    node.create(**LETTERS)
    chooses_p2 = world.node(draw=lambda: 0.9)
    wear_out(world, chooses_p2, "a")

    claim(chooses_p2)

    assert node.pool(DEAD) == "p1"
    assert dead(node) == ["a"]


def test_a_dead_letter_queue_that_moved_gets_them_all_the_same(world):
    node = world.node()
    node.create(DEAD)
    node.create(**LETTERS)
    wear_out(world, node, "a")
    claim(node)
    assert dead(node) == ["a"]

    world.node().move("p2", DEAD)
    wear_out(world, node, "b")
    claim(node)

    assert dead(node) == ["a", "b"]
    world.node().move("p2")
    world.advance(2)  # what a process remembers of a queue
    wear_out(world, node, "c")
    claim(node)
    assert dead(node) == ["a", "b", "c"]
    assert world.holdings(1) == 0


def test_letters_that_wait_do_not_keep_a_pool_from_being_removed(world):
    """They are forwarded before it goes."""
    node = divide(world)
    wear_out(world, node, "a")
    sick(node, world, "post", after=False)
    claim(node)
    heir = world.node(draw=lambda: 0.9)
    heir.service.moving.start("p1")
    assert heir.run()
    heir.service.pools.remove("p1", in_use=lambda: heir.service.moving.in_use("p1"))

    assert dead(heir) == ["a"]
    assert world.notes("annex") == []


def test_an_annex_is_forgotten_with_its_queue(world):
    node = divide(world)
    wear_out(world, node, "a")
    claim(node)
    assert len(world.notes("annex")) == 1

    node.service.queues.delete(HOME)
    node.service.dead_letters.sweep_all(Event())

    assert world.notes("annex") == []
    assert world.holdings(1) == 0


def test_no_queue_can_have_the_name_of_an_annex(world):
    """And it is in no listing; a project can have as many as there are dead-letter queues."""
    from queues.errors import InvalidName
    from queues.limits import check_address
    from queues.service.queues import Listing

    node = divide(world)
    wear_out(world, node, "a")
    sick(node, world, "post", after=False)
    claim(node)
    (annex,) = node.service.dead_letters.annexes()
    assert Probe(world.store(1).messages, world.clock, annex.address).counts() == (1, 0, 1)

    with pytest.raises(InvalidName):
        check_address(annex.address)
    listed = node.service.queues.list(HOME.project, Listing())
    assert {queue.address for queue in listed} == {HOME, DEAD}


def test_a_sweep_stops_when_it_is_told_to(world):
    node = divide(world)
    wear_out(world, node, "a")
    sick(node, world, "post", after=False)
    claim(node)
    stop = Event()
    stop.set()

    node.service.dead_letters.sweep_all(stop)

    assert dead(node) == []


def test_what_waits_in_the_annex_of_a_deleted_queue_still_arrives(world):
    """Until it has, nobody forgets it."""
    node = divide(world)
    wear_out(world, node, "a")
    sick(node, world, "post", after=False)
    claim(node)
    node.service.queues.delete(HOME)

    world.node().service.dead_letters.sweep_all(Event())

    assert dead(world.node()) == ["a"]
    assert world.notes("annex") == []
