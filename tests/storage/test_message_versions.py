"""P13: each stored message states its version; one of a newer version is refused, and left as it is.

In memory nothing outlives the release that wrote it, so there is no such message there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queues.errors import StoreUnsupported
from queues.identity import split_id
from queues.models import DeadLetter, Selection
from queues.ports import Driver
from queues.versions import MESSAGE_VERSION
from storage.mongodb import MongoStore
from storage.mongodb_header import message_key
from storage.redis import RedisStore
from storage.redis_keys import base_key
from storage.registry import connect
from storage.sqlite import SqliteStore
from tests.storage.moving import Passage, carry, furnish, seal, seen
from tests.storage.probe import HOME, Probe, bodies, ids
from tests.storage.variants import VARIANTS

#: How a store keeps messages of the version behind those that this release knows, in clear and encrypted.
NEWER = (MESSAGE_VERSION << 1, MESSAGE_VERSION << 1 | 1)

pytestmark = pytest.mark.parametrize(
    "variant", [each for each in VARIANTS if each.shared], ids=lambda each: each.name, indirect=True
)


def place_of(id_: str) -> int:
    found = split_id(id_)
    assert found is not None
    return found[0]


def sqlite_form(driver: Any, id_: str, form: int | None) -> object:
    def step(connection: sqlite3.Connection) -> object:
        (pile,) = connection.execute("SELECT pile FROM queue WHERE name = ?", (HOME.queue,)).fetchone()
        key = (pile, place_of(id_))
        if form is not None:
            connection.execute("UPDATE message SET sealed = ? WHERE pile = ? AND seq = ?", (form, *key))
        return connection.execute("SELECT sealed FROM message WHERE pile = ? AND seq = ?", key).fetchone()[0]

    return driver._file.write(step)


def redis_form(driver: Any, id_: str, form: int | None) -> object:
    base, place = base_key(driver._link.prefix, HOME), place_of(id_)
    packed = bytearray(driver._link.read(base, "HGET", f"{base}:m", place))
    behind_client = 1 + packed[0]
    if form is not None:
        packed[behind_client] = form
        driver._link.read(base, "HSET", f"{base}:m", place, bytes(packed))
    return packed[behind_client]


def mongodb_form(driver: Any, id_: str, form: int | None) -> object:
    database = driver._link.database
    queue = database.queue.find_one({"_id": {"p": HOME.project, "q": HOME.queue}})
    key = {"_id": message_key(queue["pile"], place_of(id_))}
    if form is not None:
        database.message.update_one(key, {"$set": {"se": form}})
    return database.message.find_one(key)["se"]


_FORMS: dict[type, Callable[[Any, str, int | None], object]] = {
    SqliteStore: sqlite_form,
    RedisStore: redis_form,
    MongoStore: mongodb_form,
}


def form_of(driver: Driver, id_: str) -> object:
    """Read what the store keeps about a message of the queue."""
    return _FORMS[type(driver)](driver, id_, None)


def renew_form(driver: Driver, id_: str, form: int) -> None:
    """Write it, as a newer release would."""
    _FORMS[type(driver)](driver, id_, form)


@pytest.fixture(params=NEWER, ids=["clear", "encrypted"])
def newer(request, driver, queue) -> str:
    """The third of five messages, which is of a newer version."""
    posted: str = queue.fill(5)[2]
    renew_form(driver, posted, request.param)
    return posted


@pytest.fixture
def elsewhere(tmp_path, clock) -> Iterator[Driver]:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    opened = connect(f"sqlite:///{folder / 'store.db'}", timeout=5.0, clock=clock)
    yield opened
    opened.close()


def refused() -> Any:
    return pytest.raises(StoreUnsupported, match="A message has version 2, and this release knows 1")


def assert_nothing_happened(driver: Driver, queue: Probe, newer: str) -> None:
    """Look at everything about five messages but the newer one; then at that one, as a newer release would."""
    form = form_of(driver, newer)
    assert form in NEWER
    assert queue.counts() == (5, 0, 5)
    renew_form(driver, newer, 0)
    everything = queue.everything()
    assert bodies(everything) == ["1", "2", "3", "4", "5"]
    assert [(each.claim_id, each.claim_count) for each in everything] == [(None, 0)] * 5
    assert bodies(queue.claim(5).messages) == ["1", "2", "3", "4", "5"]


def test_what_release_0_1_0_wrote_is_version_1_and_takes_no_more_room(driver, queue):
    (clear,), (sealed,) = queue.fill(1), seal(queue, b"secret")

    forms = [form_of(driver, clear), form_of(driver, sealed)]

    assert forms == [False, True]
    if isinstance(driver, MongoStore):  # a number would take three bytes more
        assert [type(form) for form in forms] == [bool, bool]
    assert [message.sealed for message in queue.get(clear, sealed)] == [False, True]
    assert [message.sealed for message in queue.claim().messages] == [False, True]


def test_a_message_of_version_1_reads_as_ever_where_a_boolean_became_a_number(driver, queue):
    first, second = queue.fill(2)
    renew_form(driver, second, 1)
    renew_form(driver, first, 0)

    assert [message.sealed for message in queue.everything()] == [False, True]
    assert bodies(queue.pop(5)) == ["1"]


def test_a_newer_message_is_not_shown(driver, queue, newer):
    before, after = queue.page(limit=2), queue.page(newer)

    with refused():
        queue.get(newer)
    with refused():
        queue.page()

    assert (bodies(before), bodies(after)) == (["1", "2"], ["4", "5"])
    assert bodies(queue.get(*ids(before), *ids(after))) == ["1", "2", "4", "5"]
    assert_nothing_happened(driver, queue, newer)


def test_a_newer_message_is_not_claimed_and_neither_is_what_would_be_claimed_with_it(driver, queue, newer):
    for _ in range(2):
        with refused():
            queue.claim(4)

    assert_nothing_happened(driver, queue, newer)


def test_a_newer_message_is_not_popped_and_neither_is_what_would_be_popped_with_it(driver, queue, newer):
    for _ in range(2):
        with refused():
            queue.pop(4)

    assert_nothing_happened(driver, queue, newer)


def test_what_is_in_front_of_a_newer_message_and_behind_it_is_handed_out(driver, queue, newer):
    assert bodies(queue.claim(1).messages) == ["1"]
    assert bodies(queue.pop(1)) == ["2"]
    with refused():
        queue.claim(1)
    with refused():
        queue.pop(1)

    queue.delete(newer)

    assert bodies(queue.claim(1).messages) == ["4"]
    assert bodies(queue.pop(1)) == ["5"]
    assert queue.counts() == (0, 2, 2)


def test_an_encrypted_message_in_front_of_a_newer_one_is_in_the_way_of_pop_first(driver, queue):
    seal(queue, b"secret")
    renew_form(driver, queue.fill(1)[0], NEWER[0])

    popped = queue.store.pop(queue.address, 5, now=queue.clock.now)

    assert (popped.messages, popped.sealed_next) == ([], True)


def test_a_claim_of_a_newer_release_is_not_shown_and_can_be_ended_in_each_way(driver, queue):
    first, second = queue.fill(2)
    claim = queue.claim()
    for id_ in (first, second):
        renew_form(driver, id_, NEWER[0])

    with refused():
        queue.read_claim(claim.id)
    queue.renew(claim.id, ttl=600)
    queue.delete(first, claim.id)
    assert queue.counts() == (0, 1, 1)

    queue.release(claim.id)
    assert queue.counts() == (1, 0, 1)
    with refused():
        queue.claim()
    queue.clock.advance(3600)
    assert queue.everything() == []


def test_a_newer_message_is_counted_and_becomes_a_dead_letter_as_it_is(driver, queue):
    letters = queue.other("queue>dead")  # an annex, which one step reaches; see `joins` of the port
    (worn,) = queue.fill(1)
    queue.release(queue.claim(1).id)
    renew_form(driver, worn, NEWER[0])
    assert queue.stats().oldest.id == worn

    claimed = queue.try_claim(dead_letter=DeadLetter(address=letters.address, max_claims=1, ttl=60))

    assert (claimed.claim, claimed.dead_lettered) == (None, 1)
    assert (queue.counts(), letters.counts()) == ((0, 0, 0), (1, 0, 1))
    with refused():
        letters.everything()


def test_a_queue_with_a_newer_message_does_not_move_to_another_store(driver, queue, newer, elsewhere):
    passage = Passage(driver, elsewhere, queue.address).begin()

    with refused():
        passage.catch_up()
    passage.call_off()

    assert elsewhere.messages.list(queue.address, Selection(), now=queue.clock.now) == []
    assert_nothing_happened(driver, queue, newer)


def test_a_queue_does_not_move_where_a_newer_message_came_while_it_was_copied(driver, queue, elsewhere):
    queue.fill(4)
    passage = Passage(driver, elsewhere, queue.address).begin().catch_up()
    (newer,) = queue.post("5")
    renew_form(driver, newer, NEWER[0])

    with refused():
        passage.land()
    passage.call_off()

    assert_nothing_happened(driver, queue, newer)


def test_a_queue_of_version_1_moves_with_the_form_of_each_message(driver, queue, elsewhere):
    furnished = furnish(queue)
    before = seen(queue, furnished.held, furnished.other)

    carry(driver, elsewhere, queue.address)

    moved = Probe(elsewhere.messages, queue.clock)
    assert seen(moved, furnished.held, furnished.other) == before
    assert form_of(elsewhere, furnished.sealed[0]) == 1
    assert form_of(elsewhere, furnished.ready[0]) == 0
