"""Emptying a queue, and forgetting it."""

import pytest

from queues.errors import ClaimNotFound, QueueNotFound
from queues.models import NewMessage
from tests.storage.probe import bodies, ids


@pytest.fixture(params=["purge", "drop"])
def clear(request, queue):
    return queue.purge if request.param == "purge" else queue.drop


def full(queue):
    """Fill a queue with messages in every state; return their ids and a live claim on some."""
    queue.fill(2)
    claim = queue.claim(1)
    queue.post("delayed", delay=60)
    queue.fill(30)
    queue.post("expired", ttl=60)
    queue.clock.advance(60)
    return ids(queue.everything()), claim


def test_nothing_is_left_not_even_what_was_claimed(queue, clear):
    posted, claim = full(queue)

    clear()

    assert queue.everything() == []
    assert queue.get(*posted) == []
    assert queue.counts() == (0, 0, 0)
    assert queue.stats().oldest is None
    assert queue.pop(20) == []
    assert queue.try_claim().claim is None
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    with pytest.raises(ClaimNotFound):
        queue.renew(claim.id)


def test_b14_nothing_that_was_before_reaches_what_comes_after(queue, clear):
    posted, claim = full(queue)
    clear()
    again = queue.fill(len(posted))
    fresh = queue.claim(3)

    queue.release(claim.id)
    queue.delete_many(posted)
    for id_ in posted:
        queue.delete(id_)
        queue.delete(id_, claim.id)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)

    assert ids(queue.everything()) == list(again)
    assert queue.get(*posted) == []
    assert ids(queue.read_claim(fresh.id).messages) == list(again[:3])
    assert set(again).isdisjoint(posted)
    queue.clock.advance(300)
    assert queue.counts() == (len(posted), 0, len(posted))


def test_other_queues_lose_nothing(queue, clear):
    full(queue)
    others = [queue.other(), queue.other("queue.x"), queue.other("queu"), queue.other(project="another")]
    for other in others:
        other.fill(3)
        other.claim(1, ttl=3600)

    clear()
    queue.expire()

    assert [other.counts() for other in others] == [(2, 1, 3)] * 4


def test_it_can_be_done_again_and_to_a_queue_that_does_not_exist(queue, clear):
    clear()
    clear()
    full(queue)
    clear()
    clear()
    queue.expire()

    assert queue.everything() == []


def test_what_is_left_behind_is_reclaimed_piecemeal_and_harms_nobody(queue, clear):
    for _ in range(3):
        full(queue)
        clear()
    kept = queue.post("kept")

    for _ in range(1000):
        assert ids(queue.everything()) == list(kept)
        if not queue.expire(limit=5):
            break
    else:
        pytest.fail("reclaiming does not end")
    assert queue.expire() == 0


def test_a_purged_queue_is_known_and_its_markers_stay_valid(queue):
    posted = queue.fill(3)
    queue.purge()

    queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)

    assert bodies(queue.page(posted[-1])) == ["1"]
    assert bodies(queue.page(posted[0])) == ["1"]


def test_d8_a_dropped_queue_is_unknown(queue):
    queue.fill(3)
    queue.drop()

    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)
    assert queue.everything() == []


def test_d8_ids_and_markers_of_a_dropped_queue_are_foreign_to_its_successor(queue):
    before = queue.fill(3)
    queue.drop()
    after = queue.fill(3)

    assert set(before).isdisjoint(after)
    assert queue.get(*before) == []
    for marker in before:
        assert queue.page(marker, include_claimed=True) == []
    queue.delete_many(before)
    assert ids(queue.everything()) == list(after)
