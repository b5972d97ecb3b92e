"""Claims on MongoDB do not begin at places that were taken long ago, and find whatever comes back to them."""

from contextlib import closing
from typing import Any

import pytest
from pymongo import MongoClient

from queues.models import NewMessage
from storage import mongodb_ready
from storage.registry import connect
from tests import servers
from tests.storage.probe import Clock, Probe, ids

STRIDE = 5


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(mongodb_ready, "_STRIDE", STRIDE)
    clock, uri = Clock(), servers.mongodb_uri(tmp_path)
    with closing(connect(uri, clock=clock)) as driver, MongoClient[dict[str, Any]](uri) as client:
        yield Probe(driver.messages, clock), client.get_default_database()


@pytest.fixture
def queue(store):
    return store[0]


@pytest.fixture
def database(store):
    return store[1]


def header(database):
    (found,) = database.queue.find()
    return found


def test_a_claim_looks_behind_what_was_taken(queue, database):
    queue.fill(20)
    for _ in range(2):
        queue.claim(6)

    assert header(database)["low"] == 13
    assert header(database)["kept"] == header(database)["rev"]


def test_the_header_is_written_for_it_once_in_a_while(queue, database):
    queue.fill(20)
    queue.claim(STRIDE - 2)

    assert header(database)["low"] == 0


def test_a_pop_looks_behind_what_was_taken(queue, database):
    queue.fill(20)
    queue.pop(6)

    assert header(database)["low"] == 7


def test_a_pop_that_ends_in_front_of_what_is_sealed_leaves_it_there(queue, database):
    queue.fill(STRIDE)
    sealed = NewMessage(body=b"1", ttl=60, sealed=True)
    queue.store.post(queue.address, [sealed], now=queue.clock.now)
    queue.fill(STRIDE)

    popped = queue.store.pop(queue.address, 2 * STRIDE, now=queue.clock.now)

    assert len(popped.messages) == STRIDE
    assert popped.sealed_next
    assert header(database)["low"] == STRIDE + 1
    assert len(queue.claim(20).messages) == STRIDE + 1


@pytest.mark.parametrize("ends", ["release", "expiry"])
def test_p5_what_a_claim_held_is_found_at_its_place(ends, queue):
    posted = queue.fill(20)
    claim = queue.claim(3, ttl=60)
    queue.claim(10, ttl=600)

    if ends == "release":
        queue.release(claim.id)
    else:
        queue.clock.advance(60)

    assert ids(queue.claim(5).messages) == [*posted[:3], *posted[13:15]]


def test_p5_a_message_whose_delay_ended_is_found_at_its_place(queue):
    (delayed,) = queue.fill(1, delay=60)
    posted = queue.fill(20)
    queue.claim(10, ttl=600)

    queue.clock.advance(60)

    assert ids(queue.claim(2).messages) == [delayed, posted[10]]


def test_p13_what_a_release_that_does_not_know_of_it_gives_back_is_found(queue, database):
    posted = queue.fill(20)
    queue.claim(10, ttl=600)
    database.message.update_one({"seq": 1}, {"$set": {"st": 0}, "$unset": {"c": ""}})
    database.queue.update_one({}, {"$inc": {"rev": 1, "free": 1, "claimed": -1}})

    assert ids(queue.page(limit=2)) == [posted[0], posted[10]]
    assert ids(queue.claim(2).messages) == [posted[0], posted[10]]
    assert header(database)["kept"] == header(database)["rev"]


def test_a_listing_begins_there_too(queue, database):
    posted = queue.fill(20)
    queue.claim(10)

    assert ids(queue.page(limit=2)) == posted[10:12]
    assert ids(queue.page(limit=2, include_claimed=True)) == posted[:2]
