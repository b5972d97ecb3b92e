"""The catalogue: where queues live, who lives in a pool, and the way to a queue on the move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from queues.errors import PoolMissing, QueueMoved, StoreUnavailable
from queues.models import Address, Move, Queue
from queues.service.catalogue import Place
from tests.queues.nodes import PATIENCE, Node, World, opened
from tests.storage.probe import HOME

OTHER = Address(project="other", queue="queue")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path, "sqlite", "sqlite") as made:
        yield made


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def shut(node: Node, move: str, pool: str = "p1") -> None:
    """Shut a queue in a pool, as a mover does."""
    transfers = node.service.pools.driver(pool).transfers
    transfers.depart(HOME, move)
    transfers.shut(HOME, move)


def note_move(node: Node, move: str, to: str = "p2") -> None:
    queue = node.catalogue.find(HOME)
    assert queue is not None
    assert node.catalogue.replace(
        Queue(
            address=HOME,
            metadata=queue.metadata,
            pool=queue.pool,
            move=Move(id=move, to=to),
            revision=queue.revision,
        )
    )


# --- queues


def test_a_queue_is_stored_with_its_pool_and_move(node):
    queue = Queue(address=HOME, metadata={"a": 1}, pool="p1", move=Move(id="m", to="p2"))

    assert node.catalogue.insert(queue)
    assert not node.catalogue.insert(queue)

    found = node.catalogue.find(HOME)
    assert found == replace(queue, revision=found.revision)
    assert node.catalogue.find(OTHER) is None


def test_a_queue_that_is_made_again_is_not_taken_for_the_earlier_one(node):
    node.create()
    earlier = node.catalogue.find(HOME)
    assert node.catalogue.remove(earlier)
    node.create()

    assert not node.catalogue.replace(earlier)
    assert not node.catalogue.remove(earlier)
    assert node.catalogue.find(HOME) is not None


def test_a_change_of_what_has_changed_is_refused(node):
    node.create()
    first, second = node.catalogue.find(HOME), node.catalogue.find(HOME)
    assert node.catalogue.replace(first)

    assert not node.catalogue.replace(second)
    assert not node.catalogue.remove(second)

    assert node.catalogue.remove(node.catalogue.find(HOME))
    assert node.catalogue.find(HOME) is None


def test_a_queue_that_is_not_there_is_not_remembered(world, node):
    """Another process may make it at any moment, in any pool."""
    assert not node.catalogue.known(HOME).exists
    world.node(draw=lambda: 0.9).create()

    known = node.catalogue.known(HOME)

    assert (known.exists, known.pool) == (True, "p2")


# --- residents


def test_a_queue_leaves_by_the_note_it_entered_by(node):
    first = node.catalogue.enter("p1", HOME)
    second = node.catalogue.enter("p1", HOME)
    node.catalogue.leave(first)
    assert node.catalogue.population("p1") == 1, "somebody entered after that"
    node.catalogue.leave(second)
    assert node.catalogue.population("p1") == 0
    third = node.catalogue.enter("p1", HOME)
    node.catalogue.leave(first)
    assert node.catalogue.population("p1") == 1, "a note of an earlier stay"
    node.catalogue.leave(third)
    node.catalogue.leave(None)


def test_residents_are_listed_by_pool_however_many_there_are(node):
    addresses = {Address(project=f"p {number % 3}", queue=f"q{number}") for number in range(450)}
    for address in addresses:
        node.catalogue.enter("p1", address)
    node.catalogue.enter("p2", HOME)

    assert {address for address, _ in node.catalogue.residents("p1")} == addresses
    assert [address for address, _ in node.catalogue.residents("p2")] == [HOME]
    assert node.catalogue.population("p1") == 450


def test_the_default_store_has_no_notes(node):
    assert node.catalogue.enter("", HOME) is None
    assert node.catalogue.resident("", HOME) is None


# --- the way


def test_a_step_is_taken_where_the_queue_lives(world, node):
    node.create()

    place = node.catalogue.at(HOME, lambda place: place)

    assert (place.pool, place.now) == ("p1", world.clock.now)
    assert node.catalogue.at(OTHER, lambda place: place.pool) == "", "nobody has declared it"


def test_what_a_step_raises_is_raised(node):
    def step(_place: Place) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        node.catalogue.at(HOME, step)


def test_a_queue_that_is_shut_for_nobody_is_opened(node):
    """The move was called off, or is done, and whoever did it died before the store was told."""
    node.create()
    node.post("a")
    shut(node, "gone")

    assert node.bodies() == ["a"]
    assert node.post("b")


def test_a_move_that_goes_on_too_long_is_called_off(node):
    node.create()
    node.post("a")
    note_move(node, "slow")
    shut(node, "slow")
    started = time.monotonic()

    assert node.bodies() == ["a"]

    assert PATIENCE <= time.monotonic() - started < 20 * PATIENCE
    queue = node.catalogue.find(HOME)
    assert (queue.pool, queue.move) == ("p1", None)


def test_who_waits_for_a_queue_gets_at_it_as_soon_as_it_has_arrived(world):
    node = world.node(patience=60)
    node.create()
    node.post("a")
    mover = world.node()
    found: list[list[str]] = []
    waiting = Thread(target=lambda: found.append(node.bodies()))
    mover.steps.hold("p2.arrive", waiting.start)

    mover.move("p2")
    waiting.join(30)

    assert found == [["a"]]
    assert mover.pool() == "p2"


def test_a_queue_that_is_shut_again_and_again_is_unavailable_in_the_end(node):
    node.create()
    tries = 0

    def step(place: Place) -> None:
        nonlocal tries
        tries += 1
        raise QueueMoved(HOME, "always")

    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        node.catalogue.at(HOME, step)

    assert tries > 1
    assert time.monotonic() - started < 40 * PATIENCE


def test_a_pool_that_is_not_registered(node):
    node.catalogue.insert(Queue(address=HOME, metadata={}, pool="nowhere"))

    with pytest.raises(PoolMissing):
        node.catalogue.at(HOME, lambda place: place)


# --- moves


def test_moves_are_found_by_their_notes_however_many_there_are(world, node):
    for name in ("a", "b"):
        node.create(Address(project="p", queue=name))
    mover = world.node()
    left: list[set[str]] = []
    address = Address(project="p", queue="a")
    mover.steps.hold("p2.load", lambda: left.append(set(node.catalogue.crossings(address))))

    mover.move("p2", address)

    assert left == [{"p1", "p2"}]
    assert node.catalogue.crossings(address) == set()
    assert node.catalogue.crossings(Address(project="p", queue="b")) == set()
