"""The life of a claim: one live lease per message, in order, for a time."""

import pytest

from queues.errors import ClaimNotFound
from tests.storage.probe import bodies, ids

NO_CLAIMS = ["", "nonsense", "0" * 32, "f" * 32, "\N{SNOWMAN}", "' OR 1=1 --", "a" * 3000]


def test_a_claim_takes_the_oldest_messages_in_order(queue):
    posted = queue.fill(20)

    claim = queue.claim(15)

    assert ids(claim.messages) == list(posted[:15])
    assert queue.counts() == (5, 15, 20)
    assert ids(queue.page()) == list(posted[15:])


def test_a_claim_says_on_what_terms_it_was_taken(queue):
    queue.fill(2)
    now = queue.clock.now

    claim = queue.claim(ttl=70, grace=60)

    assert (claim.ttl, claim.renewed, claim.expires) == (70, now, now + 70_000)
    assert [message.claim_id for message in claim.messages] == [claim.id, claim.id]


def test_a_claim_reads_the_same_later(queue):
    queue.fill(15)
    queue.post("{}", client_id="producer")
    claim = queue.claim(16)
    queue.clock.advance(25)

    later = queue.read_claim(claim.id)

    assert list(later.messages) == list(claim.messages)
    assert (later.id, later.ttl, later.renewed, later.expires) == (
        claim.id,
        claim.ttl,
        claim.renewed,
        claim.expires,
    )
    assert later.age(queue.clock.now) == 25


def test_five_claims_of_the_default_size_take_fifty_of_fifty_one(queue):
    posted = queue.fill(51)

    taken = [id_ for _ in range(5) for id_ in ids(queue.claim().messages)]

    assert taken == list(posted[:50])
    assert queue.counts() == (1, 50, 51)
    assert ids(queue.claim().messages) == [posted[50]]


def test_where_nothing_is_free_there_is_no_claim(queue):
    assert queue.try_claim().claim is None
    queue.fill(2)
    queue.claim()

    assert queue.try_claim().claim is None
    assert queue.counts() == (0, 2, 2)


def test_claims_have_ids_of_32_hexadecimal_digits_that_nobody_can_guess(queue):
    queue.fill(20)
    claims = {queue.claim(1).id for _ in range(20)}

    assert len(claims) == 20
    assert all(len(id_) == 32 and set(id_) <= set("0123456789abcdef") for id_ in claims)
    assert len({id_[:8] for id_ in claims}) == 20
    assert len({id_[-8:] for id_ in claims}) == 20


@pytest.mark.parametrize("claim_id", NO_CLAIMS)
def test_a_claim_that_does_not_exist_is_not_found(queue, claim_id):
    for _ in range(2):
        with pytest.raises(ClaimNotFound):
            queue.read_claim(claim_id)
        with pytest.raises(ClaimNotFound):
            queue.renew(claim_id)
        queue.release(claim_id)
        queue.post("a")
        queue.claim()
    assert queue.counts() == (0, 2, 2)


def test_the_id_of_a_message_is_no_claim(queue):
    (posted,) = queue.post("a")
    queue.claim()

    with pytest.raises(ClaimNotFound):
        queue.read_claim(posted)


def test_a_released_claim_gives_its_messages_back_in_their_places(queue):
    posted = queue.fill(4)
    claim = queue.claim(2)

    queue.release(claim.id)
    queue.release(claim.id)

    assert ids(queue.page()) == list(posted)
    assert [message.claim_id for message in queue.everything()] == [None] * 4
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    with pytest.raises(ClaimNotFound):
        queue.renew(claim.id)
    assert ids(queue.claim(3).messages) == list(posted[:3])


def test_a_claim_is_over_at_exactly_its_expiry(queue):
    posted = queue.fill(3)
    claim = queue.claim(2, ttl=60)

    queue.clock.advance(60, ms=-1)
    assert queue.read_claim(claim.id).age(queue.clock.now) == 59
    assert queue.counts() == (1, 2, 3)

    queue.clock.advance(ms=1)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    assert queue.counts() == (3, 0, 3)
    assert [message.claim_id for message in queue.get(*posted)] == [None] * 3
    assert ids(queue.page()) == list(posted)


def test_a_message_whose_claim_expired_returns_to_its_original_place(queue):
    posted = queue.fill(4)
    queue.claim(2, ttl=60)
    queue.claim(1, ttl=120)
    queue.clock.advance(60)
    later = queue.post("later")

    assert ids(queue.claim().messages) == [posted[0], posted[1], posted[3], *later]


@pytest.mark.parametrize("reclaimed", [False, True], ids=["as it is", "reclaimed"])
def test_b2_every_access_to_an_expired_claim_is_answered(queue, reclaimed):
    queue.fill(2)
    claim = queue.claim(ttl=60)
    queue.clock.advance(3600)
    if reclaimed:
        queue.expire()

    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    with pytest.raises(ClaimNotFound):
        queue.renew(claim.id)
    queue.release(claim.id)


def test_an_expired_claim_cannot_be_revived_though_nobody_took_its_messages(queue):
    queue.post("a")
    claim = queue.claim(ttl=60)
    queue.clock.advance(60)

    with pytest.raises(ClaimNotFound):
        queue.renew(claim.id, ttl=600)

    assert queue.counts() == (1, 0, 1)


def test_releasing_an_expired_claim_does_not_end_the_next_one(queue):
    queue.post("a")
    stale = queue.claim(ttl=60)
    queue.clock.advance(60)
    fresh = queue.claim()

    queue.release(stale.id)

    assert bodies(queue.read_claim(fresh.id).messages) == ["a"]
    assert queue.counts() == (0, 1, 1)


def test_a_renewed_claim_begins_anew(queue):
    queue.fill(2, ttl=3600)
    claim = queue.claim(ttl=60)
    queue.clock.advance(50)

    queue.renew(claim.id, ttl=90)

    renewed = queue.read_claim(claim.id)
    assert (renewed.ttl, renewed.renewed, renewed.age(queue.clock.now)) == (90, queue.clock.now, 0)
    assert list(renewed.messages) == list(claim.messages)
    queue.clock.advance(90, ms=-1)
    assert queue.counts() == (0, 2, 2)
    queue.clock.advance(ms=1)
    assert queue.counts() == (2, 0, 2)


def test_a_claim_can_be_renewed_to_end_sooner(queue):
    queue.post("a")
    claim = queue.claim(ttl=600)
    queue.renew(claim.id, ttl=60)
    queue.clock.advance(60)

    assert queue.counts() == (1, 0, 1)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)


def test_a_claim_whose_messages_were_all_deleted_lives_on_empty(queue):
    posted = queue.fill(2)
    claim = queue.claim(ttl=60)
    queue.delete(posted[0], claim.id)
    queue.delete_many([posted[1]])

    assert list(queue.read_claim(claim.id).messages) == []
    queue.clock.advance(59)
    queue.renew(claim.id, ttl=60)
    queue.clock.advance(59)
    assert list(queue.read_claim(claim.id).messages) == []
    queue.clock.advance(1)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)


def test_a_claim_is_known_only_in_its_own_queue(queue):
    queue.post("a")
    claim = queue.claim()
    other = queue.other()
    other.post("b")

    with pytest.raises(ClaimNotFound):
        other.read_claim(claim.id)
    with pytest.raises(ClaimNotFound):
        other.renew(claim.id)
    other.release(claim.id)

    assert bodies(queue.read_claim(claim.id).messages) == ["a"]


def test_b1_a_released_message_does_not_let_a_claim_steal_the_next(queue):
    posted = queue.fill(4)
    one, other = queue.claim(1), queue.claim(1)
    queue.release(one.id)

    third = queue.claim(2)

    assert ids(third.messages) == [posted[0], posted[2]]
    assert ids(queue.read_claim(other.id).messages) == [posted[1]]
    assert queue.counts() == (1, 3, 4)


def test_b1_an_expired_lease_does_not_let_a_claim_steal_the_next(queue):
    posted = queue.fill(4)
    queue.claim(1, ttl=60)
    other = queue.claim(1, ttl=600)
    queue.clock.advance(60)

    assert ids(queue.claim().messages) == [posted[0], posted[2], posted[3]]
    assert ids(queue.read_claim(other.id).messages) == [posted[1]]
    assert queue.counts() == (0, 4, 4)


def test_b1_a_matured_message_does_not_let_a_claim_steal_the_next(queue):
    (slow,) = queue.post("slow", delay=60)
    queue.post("fast")
    holder = queue.claim()
    (last,) = queue.post("last")
    queue.clock.advance(60)

    assert bodies(holder.messages) == ["fast"]
    assert ids(queue.claim().messages) == [slow, last]
    assert bodies(queue.read_claim(holder.id).messages) == ["fast"]


def test_b9_a_claim_and_its_messages_are_one_fact(queue):
    posted = queue.fill(3)
    claim = queue.claim(2)

    assert [message.claim_id for message in queue.get(*posted)] == [claim.id, claim.id, None]
    assert ids(queue.read_claim(claim.id).messages) == list(posted[:2])
    queue.release(claim.id)
    assert [message.claim_id for message in queue.get(*posted)] == [None, None, None]


def test_c2_hand_outs_are_counted_through_release_renewal_and_expiry(queue):
    (posted,) = queue.post("a")
    counts = []

    released = queue.claim()
    counts.append(released.messages[0].claim_count)
    queue.release(released.id)
    counts.append(queue.only(posted).claim_count)

    renewed = queue.claim(ttl=60)
    counts.append(renewed.messages[0].claim_count)
    queue.renew(renewed.id, ttl=60)
    counts.append(queue.read_claim(renewed.id).messages[0].claim_count)
    queue.clock.advance(60)
    counts.append(queue.only(posted).claim_count)
    queue.expire()
    counts.append(queue.claim().messages[0].claim_count)

    assert counts == [1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("ttl", "grace", "expected"),
    [(777, 0, 777), (777, 23, 800), (121, 22, 143), (60, 30, 120), (120, 30, 120)],
)
def test_a_message_outlives_its_claim_by_the_grace_if_it_must_be_extended(queue, ttl, grace, expected):
    (posted,) = queue.post("a", ttl=120)

    claim = queue.claim(ttl=ttl, grace=grace)

    assert [message.ttl for message in claim.messages] == [expected]
    assert queue.only(posted).ttl == expected
    assert queue.read_claim(claim.id).messages[0].ttl == expected


def test_b8_an_extended_message_really_lives_longer_and_then_really_ends(queue):
    (posted,) = queue.post("a", ttl=60)
    queue.clock.advance(50)
    claim = queue.claim(ttl=100, grace=20)

    queue.clock.advance(100, ms=-1)
    assert ids(queue.read_claim(claim.id).messages) == [posted]
    queue.clock.advance(20)
    assert ids(queue.page()) == [posted]
    queue.clock.advance(ms=1)
    assert queue.everything() == []
    assert queue.counts() == (0, 0, 0)


def test_b8_age_and_ttl_always_tell_when_a_message_ends(queue):
    (posted,) = queue.post("a", ttl=60)
    queue.clock.advance(50)
    claim = queue.claim(ttl=100, grace=20)
    ends = queue.clock.now + 120_000

    message = queue.only(posted)
    assert message.expires == ends
    assert (message.ttl, message.age(queue.clock.now)) == (170, 50)
    queue.release(claim.id)
    assert queue.only(posted).ttl == 170


@pytest.mark.parametrize("end", ["release", "renew", "expiry"])
def test_b8_the_end_of_a_claim_does_not_give_a_message_new_life(queue, end):
    (posted,) = queue.post("a", ttl=120)
    claim = queue.claim(ttl=60, grace=0)
    queue.clock.advance(50)
    if end == "release":
        queue.release(claim.id)
    elif end == "renew":
        queue.renew(claim.id, ttl=60, grace=0)
    queue.clock.advance(69)
    assert ids(queue.everything()) == [posted]
    queue.clock.advance(1)

    assert queue.everything() == []
    assert queue.try_claim().claim is None


def test_renewal_extends_the_messages_again(queue):
    (posted,) = queue.post("a", ttl=100)
    claim = queue.claim(ttl=60, grace=0)
    queue.clock.advance(59)

    queue.renew(claim.id, ttl=60, grace=30)

    assert queue.only(posted).ttl == 59 + 60 + 30
    queue.clock.advance(60)
    assert ids(queue.page()) == [posted]
    queue.clock.advance(30)
    assert queue.page() == []


def test_renewal_leaves_messages_alone_that_live_long_enough(queue):
    (posted,) = queue.post("a", ttl=3600)
    claim = queue.claim(ttl=60)
    queue.renew(claim.id, ttl=600, grace=600)

    assert queue.only(posted).ttl == 3600


def test_a_claim_extends_only_the_messages_that_it_takes(queue):
    first, second = queue.fill(2, ttl=60)
    queue.claim(1, ttl=100, grace=60)

    assert [message.ttl for message in queue.get(first, second)] == [160, 60]


def test_deleting_a_message_takes_it_out_of_its_claim_for_good(queue):
    first, second = queue.fill(2)
    claim = queue.claim()
    queue.delete(first, claim.id)
    queue.release(claim.id)

    assert ids(queue.everything()) == [second]
