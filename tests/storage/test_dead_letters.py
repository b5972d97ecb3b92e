"""Messages that were handed out too often move to the dead-letter queue."""

import pytest
from msgspec.structs import replace

from queues.errors import ClaimNotFound
from queues.models import DeadLetter, NewMessage
from tests.storage.probe import bodies, ids


@pytest.fixture
def dead(queue):
    return queue.other("queue>dead")  # an annex, which one step reaches; see `joins` of the port


def terms(dead, *, max_claims=2, ttl=None):
    return DeadLetter(address=dead.address, max_claims=max_claims, ttl=ttl)


def wear_out(queue, times, limit=20):
    """Hand out what is free so many times, without extending any life."""
    for _ in range(times):
        queue.release(queue.claim(limit, ttl=1, grace=0).id)


def test_the_third_claim_of_a_message_that_may_have_two_moves_it(queue, dead):
    (posted,) = queue.post('{"a": 1}', ttl=120)
    letter = terms(dead, max_claims=2, ttl=9999)
    for count in (1, 2):
        claim = queue.claim(ttl=3, dead_letter=letter)
        assert [(message.id, message.claim_count) for message in claim.messages] == [(posted, count)]
        queue.clock.advance(3)

    third = queue.try_claim(ttl=3, dead_letter=letter)

    assert (third.claim, third.dead_lettered) == (None, 1)
    assert queue.everything() == []
    (moved,) = dead.page()
    assert (moved.body, moved.ttl) == (b'{"a": 1}', 9999)
    assert queue.try_claim(dead_letter=letter).dead_lettered == 0


def test_released_claims_count_as_expired_ones_do(queue, dead):
    queue.post("a")
    wear_out(queue, 2)

    assert queue.try_claim(dead_letter=terms(dead)).claim is None
    assert bodies(dead.page()) == ["a"]


def test_without_terms_nothing_is_ever_moved(queue):
    queue.post("a")
    wear_out(queue, 10)

    assert queue.claim().messages[0].claim_count == 11


def test_a_message_below_the_threshold_stays(queue, dead):
    queue.post("a")
    wear_out(queue, 2)

    claimed = queue.try_claim(dead_letter=terms(dead, max_claims=3))

    assert claimed.dead_lettered == 0
    assert claimed.claim is not None
    assert dead.everything() == []


def test_the_claim_is_filled_from_what_comes_behind_the_moved_messages(queue, dead):
    queue.fill(7)
    wear_out(queue, 2, limit=5)

    claimed = queue.try_claim(2, dead_letter=terms(dead))

    assert claimed.claim is not None
    assert bodies(claimed.claim.messages) == ["6", "7"]
    assert claimed.dead_lettered == 5
    assert bodies(dead.page()) == ["1", "2", "3", "4", "5"]


def test_only_messages_that_the_claim_comes_across_are_moved(queue, dead):
    queue.post("a", "b")
    wear_out(queue, 2)
    held = queue.claim(2)
    queue.post("fresh")
    queue.release(held.id)
    first = queue.claim(1, dead_letter=terms(dead, max_claims=4))
    assert bodies(first.messages) == ["a"]

    claimed = queue.try_claim(1, dead_letter=terms(dead, max_claims=3))

    assert claimed.claim is not None
    assert bodies(claimed.claim.messages) == ["fresh"]
    assert bodies(dead.page()) == ["b"]
    assert bodies(queue.read_claim(first.id).messages) == ["a"]


def test_worn_messages_behind_a_full_claim_are_left_for_the_next(queue, dead):
    queue.post("first")
    holder = queue.claim()
    queue.post("worn")
    wear_out(queue, 2)
    queue.release(holder.id)

    claimed = queue.try_claim(1, dead_letter=terms(dead))

    assert claimed.claim is not None
    assert bodies(claimed.claim.messages) == ["first"]
    assert claimed.dead_lettered == 0
    assert dead.everything() == []


def test_c3_a_moved_message_is_new_at_the_tail_free_and_uncounted(queue, dead):
    before = dead.fill(2)
    (posted,) = queue.post("a")
    wear_out(queue, 2)

    queue.try_claim(dead_letter=terms(dead))

    moved = dead.page()[-1]
    assert bodies(dead.page()) == ["1", "2", "a"]
    assert moved.id > before[-1]
    assert moved.id != posted
    assert (moved.claim_id, moved.claim_count) == (None, 0)
    assert ids(dead.page(before[-1])) == [moved.id]
    assert queue.get(posted) == []
    assert dead.get(posted) == []
    assert bodies(dead.claim().messages) == ["1", "2", "a"]


def test_c3_a_missing_dead_letter_queue_is_created(queue, dead):
    queue.post("a", "b")
    wear_out(queue, 1)
    queue.post("fresh")

    claim = queue.claim(dead_letter=terms(dead, max_claims=1))

    assert bodies(claim.messages) == ["fresh"]
    assert bodies(dead.page()) == ["a", "b"]
    dead.store.post(dead.address, [NewMessage(body=b"1", ttl=60)], now=dead.clock.now)


def test_b11_with_a_ttl_the_message_lives_that_long_from_the_move(queue, dead):
    queue.post("a", ttl=120)
    wear_out(queue, 2)
    queue.clock.advance(100)

    queue.try_claim(dead_letter=terms(dead, ttl=600))

    (moved,) = dead.page()
    assert (moved.created, moved.ttl) == (queue.clock.now, 600)
    queue.clock.advance(600, ms=-1)
    assert bodies(dead.page()) == ["a"]
    queue.clock.advance(ms=1)
    assert dead.everything() == []
    assert dead.counts() == (0, 0, 0)


def test_b11_a_ttl_can_also_shorten_a_life(queue, dead):
    queue.post("a", ttl=3600)
    wear_out(queue, 2)
    queue.try_claim(dead_letter=terms(dead, ttl=60))
    queue.clock.advance(60)

    assert dead.everything() == []


def test_b11_without_a_ttl_the_message_keeps_its_own_times(queue, dead):
    queue.post("a", ttl=120)
    wear_out(queue, 2)
    before = queue.everything()[0]
    queue.clock.advance(100)

    queue.try_claim(dead_letter=terms(dead))

    (moved,) = dead.page()
    assert moved == replace(before, id=moved.id, claim_count=0)
    queue.clock.advance(20, ms=-1)
    assert dead.counts() == (1, 0, 1)
    queue.clock.advance(ms=1)
    assert dead.counts() == (0, 0, 0)


def test_b11_names_with_dots_are_no_obstacle(queue):
    source, dead = queue.other("a.b", project="x.y"), queue.other("b.a.", project="x.y")
    source.post("a")
    wear_out(source, 1)

    assert source.try_claim(dead_letter=terms(dead, max_claims=1)).dead_lettered == 1
    assert bodies(dead.page()) == ["a"]


def test_a_moved_message_keeps_who_posted_it_and_that_it_is_sealed(queue, dead):
    batch = [NewMessage(body=b"\x00sealed", ttl=600, client_id="producer", sealed=True)]
    queue.store.post(queue.address, batch, now=queue.clock.now, create=True)
    wear_out(queue, 1)
    queue.try_claim(dead_letter=terms(dead, max_claims=1))

    (moved,) = dead.page()
    assert (moved.body, moved.client_id, moved.sealed) == (b"\x00sealed", "producer", True)


def test_what_was_moved_is_hidden_from_its_own_producer_only(queue, dead):
    queue.post("a", client_id="one")
    dead.post("b", client_id="two")
    wear_out(queue, 1)
    queue.try_claim(dead_letter=terms(dead, max_claims=1))

    assert bodies(dead.page(hide_client="two")) == ["a"]
    assert bodies(dead.page(hide_client="one")) == ["b"]


def test_a_queue_that_is_its_own_dead_letter_queue_has_none(queue):
    queue.post("a")
    wear_out(queue, 5)

    claimed = queue.try_claim(dead_letter=terms(queue, max_claims=2, ttl=60))

    assert claimed.claim is not None
    assert [message.claim_count for message in claimed.claim.messages] == [6]
    assert claimed.dead_lettered == 0


def test_expired_claimed_and_delayed_messages_are_not_moved(queue, dead):
    queue.post("claimed")
    wear_out(queue, 2)
    queue.claim(ttl=600)
    queue.post("short", ttl=60)
    wear_out(queue, 2)
    queue.post("delayed", delay=300)
    queue.clock.advance(60)

    assert queue.try_claim(dead_letter=terms(dead)).dead_lettered == 0
    assert dead.everything() == []
    assert bodies(queue.everything()) == ["claimed", "delayed"]


def test_many_moves_keep_queue_order(queue, dead):
    queue.fill(50)
    wear_out(queue, 1, limit=50)
    queue.post("fresh")

    claimed = queue.try_claim(3, dead_letter=terms(dead, max_claims=1))

    assert claimed.dead_lettered == 50
    assert bodies(dead.everything()) == [str(number) for number in range(1, 51)]
    assert claimed.claim is not None
    assert bodies(claimed.claim.messages) == ["fresh"]


def test_dead_letters_stay_when_the_source_goes(queue, dead):
    queue.post("a")
    wear_out(queue, 1)
    queue.try_claim(dead_letter=terms(dead, max_claims=1))
    queue.purge()
    queue.drop()
    queue.expire()

    assert bodies(dead.page()) == ["a"]


def test_a_stale_claim_does_not_reach_into_the_dead_letter_queue(queue, dead):
    (posted,) = queue.post("a")
    stale = queue.claim(ttl=60)
    queue.clock.advance(60)
    queue.try_claim(dead_letter=terms(dead, max_claims=1))
    (moved,) = dead.page()

    queue.delete(posted, stale.id)
    queue.delete(moved.id)
    dead.delete(posted)
    with pytest.raises(ClaimNotFound):
        dead.read_claim(stale.id)

    assert ids(dead.page()) == [moved.id]


def test_an_acknowledged_message_never_reaches_the_dead_letter_queue(queue, dead):
    first, second = queue.post("acked", "not acked")
    claim = queue.claim(ttl=60)
    queue.delete(first, claim.id)
    queue.clock.advance(60)

    assert queue.try_claim(dead_letter=terms(dead, max_claims=1)).dead_lettered == 1
    assert bodies(dead.everything()) == ["not acked"]
    assert queue.get(first, second) == []


def test_a_chain_of_dead_letter_queues_works_by_hand(queue, dead):
    last = queue.other("queue>last")
    queue.post("a")
    wear_out(queue, 1)
    queue.try_claim(dead_letter=terms(dead, max_claims=1))
    wear_out(dead, 1)
    dead.try_claim(dead_letter=terms(last, max_claims=1))

    assert (queue.everything(), dead.everything()) == ([], [])
    assert bodies(last.everything()) == ["a"]
