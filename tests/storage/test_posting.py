"""What a post stores, and when it stores nothing."""

import re
import time
from contextlib import closing

import pytest

from queues.errors import QueueNotFound, StoreUnsupported
from queues.models import NewMessage
from tests.storage.pooled import connect
from tests.storage.probe import bodies, ids
from tests.storage.variants import over_drivers


def test_a_batch_keeps_the_order_of_its_messages(queue):
    posted = queue.post("a", "b", "c")

    found = queue.page()
    assert bodies(found) == ["a", "b", "c"]
    assert ids(found) == list(posted)


def test_batches_follow_each_other_however_close_in_time(queue):
    for number in range(5):
        queue.post(f"{number}a", f"{number}b")

    assert bodies(queue.page()) == ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"]


def test_a_clock_that_steps_back_changes_no_order(queue):
    first = queue.post("first")
    queue.clock.advance(-30)
    second = queue.post("second")

    assert ids(queue.page()) == [*first, *second]
    assert queue.only(*first).age(queue.clock.now) == 0


def test_a_long_batch_is_stored_whole(queue):
    posted = queue.fill(1000)

    assert ids(queue.everything()) == list(posted)
    assert queue.counts() == (1000, 0, 1000)


def test_ids_have_32_hexadecimal_digits_and_sort_in_queue_order(queue):
    posted = [*queue.fill(20), *queue.fill(20)]

    assert all(re.fullmatch(r"[0-9a-f]{32}", id_) for id_ in posted)
    assert posted == sorted(set(posted))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'""',
        b'{"a.b": {"$c": 1}, "a.b.$d": 2, "": 3}',
        b' { "b" : 1 ,\n\t"a" : 2, "b" : 1.0 } ',
        b"123456789012345678901234567890",
        '"\N{SNOWMAN} e\N{COMBINING ACUTE ACCENT} \U0001f600"'.encode(),
        b'"' + b"x" * 300_000 + b'"',
        bytes(range(256)),
    ],
    ids=["null", "empty", "keys", "layout", "integer", "unicode", "long", "binary"],
)
def test_a_body_is_kept_byte_for_byte_wherever_it_is_read(queue, body):
    batch = [NewMessage(body=body, ttl=60), NewMessage(body=b"1", ttl=60)]
    posted = queue.store.post(queue.address, batch, now=queue.clock.now, create=True).ids

    assert queue.only(posted[0]).body == body
    assert queue.page()[0].body == body
    claim = queue.claim(1)
    assert claim.messages[0].body == body
    assert queue.read_claim(claim.id).messages[0].body == body
    queue.release(claim.id)
    assert queue.pop()[0].body == body


def test_a_message_says_who_posted_it_when_and_for_how_long(queue):
    (posted,) = queue.post("a", ttl=120, client_id="producer")
    queue.clock.advance(61, ms=999)

    message = queue.only(posted)
    assert message.client_id == "producer"
    assert (message.created, message.expires) == (queue.clock.now - 61_999, queue.clock.now + 58_001)
    assert (message.ttl, message.age(queue.clock.now)) == (120, 61)
    assert (message.claim_id, message.claim_count) == (None, 0)


def test_h2_each_message_remembers_by_itself_whether_it_is_sealed(queue):
    batch = [NewMessage(body=b"1", ttl=60, sealed=True), NewMessage(body=b"2", ttl=60)]
    queue.store.post(queue.address, batch, now=queue.clock.now, create=True)

    assert [message.sealed for message in queue.page()] == [True, False]
    assert [message.sealed for message in queue.claim(1).messages] == [True]
    assert [message.sealed for message in queue.everything()] == [True, False]
    assert [message.sealed for message in queue.pop()] == [False]


@pytest.mark.parametrize(
    "client_id",
    ["", "not-a-uuid", "3381AF92-2B9E-11E3-B191-71861300734C", "k\N{LATIN SMALL LETTER O WITH DIAERESIS}nig"],
)
def test_c10_any_text_is_a_client_id(queue, client_id):
    (posted,) = queue.post("a", client_id=client_id)
    queue.post("b", client_id="another")

    assert queue.only(posted).client_id == client_id
    assert bodies(queue.page(hide_client=client_id)) == ["b"]


def test_an_unknown_queue_is_refused_unless_it_may_be_created(queue):
    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)

    assert queue.everything() == []
    assert queue.expire() == 0


def test_a_known_queue_takes_posts_though_it_is_empty(queue):
    queue.post("a")
    queue.pop()

    queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)

    assert bodies(queue.page()) == ["1"]


def test_nothing_but_a_post_makes_a_queue_known(queue):
    queue.page()
    queue.stats()
    queue.pop()
    queue.try_claim()
    queue.purge()
    queue.delete("0" * 32)
    queue.delete_many(["0" * 32])
    queue.release("0" * 32)

    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)


def test_the_store_tells_the_time_of_the_clock_that_it_was_given(queue):
    assert queue.store.clock() == queue.clock.now
    queue.clock.advance(5)
    assert queue.store.clock() == queue.clock.now


def test_the_store_has_a_clock_of_its_own_in_milliseconds(uri):
    with closing(connect(uri)) as driver:
        assert abs(driver.messages.clock() - time.time() * 1000) < 60_000


@over_drivers
def test_the_store_says_what_survives_a_crash(variant, uri, driver):
    durability = driver.messages.durability()

    assert durability.driver == uri.partition(":")[0].partition("+")[0]
    assert durability.facts
    assert variant.shared or durability.warnings


@over_drivers
def test_a_uri_that_says_too_much_is_refused(uri):
    with pytest.raises(StoreUnsupported):
        connect(f"{uri.partition(':')[0]}:?nonsense=1")
