"""Expiry is exact, and reclaiming what is over changes no answer."""

import pytest

from queues.errors import ClaimNotFound
from tests.storage.probe import bodies, ids


@pytest.mark.parametrize("reclaimed", [False, True], ids=["as it is", "reclaimed"])
def test_c7_an_expired_message_is_nowhere(queue, reclaimed):
    (posted,) = queue.post("a", ttl=60)
    queue.clock.advance(60)
    if reclaimed:
        queue.expire()

    assert queue.get(posted) == []
    assert queue.page() == []
    assert queue.everything() == []
    assert queue.counts() == (0, 0, 0)
    assert (queue.stats().oldest, queue.stats().newest) == (None, None)
    assert queue.pop(5) == []
    assert queue.try_claim().claim is None
    queue.delete(posted)
    queue.delete(posted, "nonsense")
    queue.delete_many([posted], claim_ids=[])


def test_c7_a_message_lives_until_exactly_its_expiry(queue):
    (posted,) = queue.post("a", ttl=60)
    queue.clock.advance(60, ms=-1)

    assert ids(queue.get(posted)) == [posted]
    assert ids(queue.page()) == [posted]
    assert queue.counts() == (1, 0, 1)
    queue.clock.advance(ms=1)
    assert queue.get(posted) == []


def test_c7_expired_messages_between_others_are_skipped(queue):
    queue.post("short", ttl=60)
    queue.post("a")
    queue.fill(3, ttl=60)
    queue.post("b")
    queue.post("short", ttl=60)
    queue.clock.advance(60)

    assert bodies(queue.page(limit=2)) == ["a", "b"]
    assert bodies(queue.claim(2).messages) == ["a", "b"]
    assert queue.counts() == (0, 2, 2)


def test_a_message_that_expires_as_its_claim_ends_is_gone_not_free(queue):
    queue.post("a", ttl=60)
    queue.claim(ttl=60)
    queue.clock.advance(60)

    assert queue.counts() == (0, 0, 0)
    assert queue.try_claim().claim is None


def test_messages_expire_by_themselves_even_where_nothing_else_happens(queue):
    queue.fill(3, ttl=60)
    queue.fill(2, ttl=120)
    queue.clock.advance(60)
    assert queue.counts() == (2, 0, 2)
    queue.clock.advance(60)
    assert queue.counts() == (0, 0, 0)


def test_an_expired_message_leaves_room_for_no_stale_claim(queue):
    queue.post("a", ttl=60)
    claim = queue.claim(ttl=60, grace=0)
    queue.clock.advance(120)

    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    queue.post("b")
    assert bodies(queue.claim().messages) == ["b"]


def test_reclaiming_has_nothing_to_do_where_nothing_is_over(queue):
    assert queue.expire() == 0
    queue.fill(3)
    queue.post("delayed", delay=60)
    queue.claim(1)

    assert queue.expire() == 0
    assert queue.counts() == (3, 1, 4)


def test_b4_reclaiming_finds_everything_that_is_over_and_then_nothing(queue):
    queue.fill(5, ttl=60)
    dotted = queue.other("a.b..c")
    dotted.fill(5, ttl=60)
    dotted.claim(2, ttl=60, grace=0)
    kept = queue.post("kept", ttl=600)
    queue.clock.advance(60)

    assert queue.expire() >= 10
    assert queue.expire() == 0
    assert ids(queue.everything()) == list(kept)
    assert dotted.everything() == []


def test_b4_reclaiming_in_small_steps_ends(queue):
    queue.fill(20, ttl=60)
    queue.claim(5, ttl=60, grace=0)
    queue.other().fill(20)
    queue.other().purge()
    queue.other("third").fill(20)
    queue.other("third").drop()
    queue.post("kept", ttl=600)
    queue.clock.advance(60)

    steps = 0
    while queue.expire(limit=3):
        steps += 1
        assert steps < 200
        assert queue.counts() == (1, 0, 1)

    assert queue.expire() == 0
    assert bodies(queue.everything()) == ["kept"]


def test_b4_reclaiming_takes_about_as_many_as_it_may(queue):
    queue.fill(200, ttl=60)
    queue.clock.advance(60)

    assert queue.expire(limit=10) < 50
    assert queue.expire(limit=1000) >= 100


def test_reclaiming_changes_no_answer(queue):
    posted = queue.fill(6, ttl=60)
    posted = [*posted, *queue.fill(6, ttl=600)]
    claim = queue.claim(8, ttl=120, grace=10)
    queue.post("delayed", delay=60)
    queue.clock.advance(60)
    before = (queue.everything(), queue.stats(), queue.page(posted[3]), queue.read_claim(claim.id))

    queue.expire()

    assert (queue.everything(), queue.stats(), queue.page(posted[3]), queue.read_claim(claim.id)) == before
    queue.clock.advance(60)
    queue.expire(limit=1)
    assert queue.counts() == (13, 0, 13)
    queue.clock.advance(10)
    assert queue.counts() == (7, 0, 7)
