"""A post repeated with its key stores once and answers the same ids."""

import pytest

from queues.errors import KeyReused, QueueNotFound
from queues.models import NewMessage, Once
from tests.storage.probe import bodies, ids


def test_p10_a_repeated_post_stores_once_and_answers_the_same_ids(queue):
    first = queue.post_once("a", "b")
    again = queue.post_once("a", "b")

    assert (first.repeated, again.repeated) == (False, True)
    assert list(again.ids) == list(first.ids) == ids(queue.everything())
    assert bodies(queue.everything()) == ["a", "b"]


def test_a_post_without_a_key_is_never_a_repeat(queue):
    queue.post("a")
    queue.post("a")

    assert queue.counts() == (2, 0, 2)


def test_different_keys_are_different_posts(queue):
    first = queue.post_once("a", key="one")
    second = queue.post_once("a", key="two")

    assert not second.repeated
    assert ids(queue.everything()) == [*first.ids, *second.ids]


def test_keys_are_compared_exactly(queue):
    keys = ["key", "Key", "key ", "ke", "key%", "k_y", "key.key", "~" * 255, "~" * 254]
    for key in keys:
        assert not queue.post_once(key, key=key).repeated
    for key in keys:
        assert queue.post_once(key, key=key).repeated

    assert bodies(queue.everything()) == keys


def test_a_repeat_with_other_content_is_refused_and_stores_nothing(queue):
    first = queue.post_once("a", fingerprint="1")

    for _ in range(2):
        with pytest.raises(KeyReused):
            queue.post_once("b", "c", fingerprint="2")

    assert ids(queue.everything()) == list(first.ids)
    assert queue.counts() == (1, 0, 1)
    assert queue.post_once("a", fingerprint="1").repeated


def test_fingerprints_are_any_bytes(queue):
    for number, fingerprint in enumerate([b"\x00", b"\x00\x00", b"\xff", b""]):
        once = Once(key=str(number), fingerprint=fingerprint, window=60)
        batch = [NewMessage(body=b"1", ttl=60)]
        queue.store.post(queue.address, batch, now=queue.clock.now, once=once, create=True)
        assert queue.store.post(queue.address, batch, now=queue.clock.now, once=once).repeated
        other = Once(key=str(number), fingerprint=fingerprint + b"\x00", window=60)
        with pytest.raises(KeyReused):
            queue.store.post(queue.address, batch, now=queue.clock.now, once=other)


def test_the_window_is_counted_from_the_first_post(queue):
    first = queue.post_once("a", window=600)
    queue.clock.advance(400)
    assert queue.post_once("a", window=600).repeated
    queue.clock.advance(200, ms=-1)
    assert list(queue.post_once("a", window=600).ids) == list(first.ids)

    queue.clock.advance(ms=1)
    second = queue.post_once("a", window=600)
    assert not second.repeated
    assert ids(queue.everything()) == list(second.ids)


def test_behind_the_window_a_key_is_free_for_other_content(queue):
    queue.post_once("a", window=60)
    queue.clock.advance(60)

    assert not queue.post_once("b", window=60).repeated
    with pytest.raises(KeyReused):
        queue.post_once("a", window=60)
    queue.clock.advance(59)
    assert queue.post_once("b", window=60).repeated


@pytest.mark.parametrize("reclaimed", [False, True], ids=["as it is", "reclaimed"])
@pytest.mark.parametrize("fate", ["popped", "deleted", "expired", "purged"])
def test_a_repeat_is_recognised_whatever_became_of_the_messages(queue, fate, reclaimed):
    first = queue.post_once("a", "b", window=600)
    if fate == "popped":
        queue.pop(2)
    elif fate == "deleted":
        queue.delete_many(first.ids)
    elif fate == "expired":
        queue.clock.advance(60)
    else:
        queue.purge()
    if reclaimed:
        queue.expire()

    again = queue.post_once("a", "b", window=600)

    assert (again.repeated, list(again.ids)) == (True, list(first.ids))
    assert queue.everything() == []
    assert not queue.post_once("c", key="other").repeated
    assert bodies(queue.everything()) == ["c"]


def test_a_repeat_stays_recognised_behind_other_posts(queue):
    queue.fill(3)
    first = queue.post_once("a")
    queue.fill(3)

    assert list(queue.post_once("a").ids) == list(first.ids)
    assert queue.counts() == (7, 0, 7)


def test_a_dropped_queue_forgets_its_keys(queue):
    first = queue.post_once("a")
    queue.drop()

    second = queue.post_once("a")

    assert not second.repeated
    assert list(second.ids) != list(first.ids)
    queue.drop()
    assert not queue.post_once("b").repeated


def test_keys_of_one_queue_mean_nothing_to_another(queue):
    queue.post_once("a")
    for other in (queue.other(), queue.other(project="another")):
        assert not other.post_once("b").repeated


def test_an_unknown_queue_is_refused_before_the_key_is_looked_at(queue):
    once = Once(key="key", fingerprint=b"a", window=600)
    batch = [NewMessage(body=b"a", ttl=60)]
    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, batch, now=queue.clock.now, once=once)

    assert not queue.post_once("a").repeated
    queue.drop()
    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, batch, now=queue.clock.now, once=once)


def test_outdated_keys_are_reclaimed_and_others_kept(queue):
    for number in range(10):
        queue.post_once("a", key=f"short{number}", window=60)
    queue.post_once("a", key="long", window=600)
    queue.clock.advance(60)

    assert queue.expire() >= 10
    assert queue.expire() == 0
    assert queue.post_once("a", key="long").repeated
