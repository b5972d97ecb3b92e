"""Deleting messages, with claims and without."""

import pytest

from queues.errors import ClaimNotHeld, MessageClaimed
from tests.storage.probe import ids

NO_CLAIMS = ["", "nonsense", "0" * 32, "f" * 32, "\N{SNOWMAN}", "' OR 1=1 --"]
NO_MESSAGES = ["", "nonsense", "0" * 32, "f" * 32, "\N{SNOWMAN}", "a" * 3000]


def test_a_free_message_is_deleted_without_a_claim(queue):
    first, second = queue.fill(2)

    queue.delete(first)

    assert ids(queue.everything()) == [second]
    assert queue.counts() == (1, 0, 1)


def test_deleting_again_does_nothing(queue):
    first, second = queue.fill(2)
    queue.delete(first)
    queue.delete(first)

    assert ids(queue.everything()) == [second]
    assert queue.counts() == (1, 0, 1)


@pytest.mark.parametrize("message_id", NO_MESSAGES)
@pytest.mark.parametrize("claim_id", [None, "nonsense"])
def test_a_message_that_does_not_exist_is_deleted_without_complaint(queue, message_id, claim_id):
    queue.delete(message_id, claim_id)
    queue.fill(2)
    queue.delete(message_id, claim_id)

    assert queue.counts() == (2, 0, 2)


def test_a_claimed_message_is_not_deleted_without_its_claim(queue):
    (posted,) = queue.post("a")
    claim = queue.claim()

    with pytest.raises(MessageClaimed):
        queue.delete(posted)

    assert ids(queue.read_claim(claim.id).messages) == [posted]


def test_a_claimed_message_is_deleted_with_its_claim_and_again(queue):
    first, second = queue.fill(2)
    claim = queue.claim()

    queue.delete(first, claim.id)
    queue.delete(first, claim.id)

    assert ids(queue.read_claim(claim.id).messages) == [second]
    assert ids(queue.everything()) == [second]


def test_a_claimed_message_is_not_deleted_with_another_live_claim(queue):
    first, second = queue.fill(2)
    one, other = queue.claim(1), queue.claim(1)

    with pytest.raises(MessageClaimed):
        queue.delete(first, other.id)
    with pytest.raises(MessageClaimed):
        queue.delete(second, one.id)

    assert queue.counts() == (0, 2, 2)


@pytest.mark.parametrize("claim_id", NO_CLAIMS)
def test_a_claimed_message_is_not_deleted_with_a_claim_that_does_not_exist(queue, claim_id):
    (posted,) = queue.post("a")
    queue.claim()

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, claim_id)

    assert ids(queue.everything()) == [posted]


@pytest.mark.parametrize("claim_id", NO_CLAIMS)
def test_a_free_message_is_not_deleted_with_a_claim_that_does_not_exist(queue, claim_id):
    (posted,) = queue.post("a")

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, claim_id)

    assert ids(queue.everything()) == [posted]


def test_a_free_message_is_not_deleted_with_a_live_claim_on_others(queue):
    _, free = queue.fill(2)
    claim = queue.claim(1)

    with pytest.raises(ClaimNotHeld):
        queue.delete(free, claim.id)

    assert queue.counts() == (1, 1, 2)


def test_a_delayed_message_is_deleted_like_a_free_one(queue):
    first, second = queue.fill(2, delay=60)
    with pytest.raises(ClaimNotHeld):
        queue.delete(first, "nonsense")
    queue.delete(first)

    assert ids(queue.everything()) == [second]


def test_a_released_claim_deletes_nothing(queue):
    (posted,) = queue.post("a")
    claim = queue.claim()
    queue.release(claim.id)

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, claim.id)

    assert ids(queue.page()) == [posted]


def test_an_expired_claim_deletes_nothing_and_the_message_is_free(queue):
    (posted,) = queue.post("a")
    claim = queue.claim(ttl=60)
    queue.clock.advance(60)

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, claim.id)
    queue.delete(posted)

    assert queue.everything() == []


def test_an_expired_claim_cannot_remove_what_someone_else_has_claimed_since(queue):
    (posted,) = queue.post("a")
    stale = queue.claim(ttl=60)
    queue.clock.advance(60)
    fresh = queue.claim()

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, stale.id)
    with pytest.raises(MessageClaimed):
        queue.delete(posted)

    assert ids(queue.read_claim(fresh.id).messages) == [posted]


def test_a_live_claim_of_another_queue_is_no_claim(queue):
    (posted,) = queue.post("a")
    queue.claim()
    queue.other().post("b")
    foreign = queue.other().claim()

    with pytest.raises(ClaimNotHeld):
        queue.delete(posted, foreign.id)

    assert queue.counts() == (0, 1, 1)


def test_many_messages_are_deleted_at_once_whoever_holds_them(queue):
    posted = queue.fill(6)
    claim = queue.claim(2)

    queue.delete_many([posted[0], "nonsense", posted[3], posted[3], "0" * 32, posted[5]])

    assert ids(queue.everything()) == [posted[1], posted[2], posted[4]]
    assert ids(queue.read_claim(claim.id).messages) == [posted[1]]
    assert queue.counts() == (2, 1, 3)


def test_many_deletions_of_nothing_do_nothing(queue):
    queue.delete_many(NO_MESSAGES)
    queue.delete_many(NO_MESSAGES, claim_ids=[])
    queue.fill(2)
    queue.delete_many(NO_MESSAGES)
    queue.delete_many(NO_MESSAGES, claim_ids=NO_CLAIMS)
    queue.delete_many([])

    assert queue.counts() == (2, 0, 2)


def test_many_deletions_can_be_made_to_heed_claims(queue):
    posted = queue.fill(5)
    one, other = queue.claim(2), queue.claim(2)

    for listed in ([], [one.id], ["nonsense", other.id]):
        with pytest.raises(MessageClaimed):
            queue.delete_many(posted, claim_ids=listed)
        assert queue.counts() == (1, 4, 5)

    queue.delete_many([posted[0], posted[4]], claim_ids=[one.id])
    assert ids(queue.everything()) == list(posted[1:4])
    queue.delete_many(posted, claim_ids={one.id, other.id, "nonsense"})
    assert queue.everything() == []


def test_many_deletions_that_heed_claims_forget_expired_ones(queue):
    posted = queue.fill(2)
    queue.claim(1, ttl=60)
    queue.clock.advance(60)

    queue.delete_many(posted, claim_ids=[])

    assert queue.everything() == []
