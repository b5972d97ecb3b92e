"""Pop: take and delete in one step."""

from queues.models import NewMessage
from tests.storage.probe import bodies, ids


def post_sealed(queue, *bodies):
    batch = [NewMessage(body=body.encode(), ttl=60, sealed=True) for body in bodies]
    queue.store.post(queue.address, batch, now=queue.clock.now, create=True)


def pop(queue, limit):
    """Pop, and tell whether it ended in front of an encrypted message."""
    popped = queue.store.pop(queue.address, limit, now=queue.clock.now)
    return bodies(popped.messages), popped.sealed_next


def test_pop_removes_the_oldest_messages_in_order(queue):
    posted = queue.fill(5)

    popped = queue.pop(3)

    assert ids(popped) == list(posted[:3])
    assert ids(queue.everything()) == list(posted[3:])
    assert queue.counts() == (2, 0, 2)
    assert queue.get(*posted[:3]) == []


def test_pop_takes_one_and_then_what_is_left(queue):
    queue.fill(3)

    assert [bodies(queue.pop()), bodies(queue.pop(20)), bodies(queue.pop(20))] == [["1"], ["2", "3"], []]


def test_pop_of_a_queue_that_does_not_exist_returns_nothing(queue):
    assert queue.pop(5) == []


def test_c4_pop_skips_claimed_delayed_and_expired_messages(queue):
    queue.post("claimed")
    queue.claim()
    queue.post("delayed", delay=300)
    queue.post("expired", ttl=60)
    queue.fill(2)
    queue.clock.advance(60)

    assert bodies(queue.pop(20)) == ["1", "2"]
    assert bodies(queue.everything()) == ["claimed", "delayed"]


def test_c4_pop_is_in_queue_order_after_claims_come_back(queue):
    posted = queue.fill(4)
    queue.claim(1, ttl=60)
    released = queue.claim(1)
    queue.pop(1)
    queue.release(released.id)
    queue.clock.advance(60)

    assert ids(queue.pop(20)) == [posted[0], posted[1], posted[3]]


def test_b10_pop_is_no_claim_and_counts_as_none(queue):
    queue.fill(2)
    queue.release(queue.claim().id)

    popped = queue.pop(2)

    assert [(message.claim_id, message.claim_count) for message in popped] == [(None, 1), (None, 1)]
    assert queue.counts() == (0, 0, 0)


def test_b10_what_was_popped_does_not_come_back(queue):
    queue.fill(2)
    queue.pop(2)
    queue.clock.advance(2)
    queue.expire()

    assert queue.pop(2) == []
    assert queue.everything() == []


def test_b10_popping_again_and_again_reaches_every_message(queue):
    queue.fill(25)
    queue.release(queue.claim(25).id)

    assert [len(queue.pop(10)) for _ in range(4)] == [10, 10, 5, 0]


def test_pop_ends_in_front_of_an_encrypted_message_and_says_so(queue):
    queue.post("a", "b")
    post_sealed(queue, "sealed")
    queue.post("c")

    assert pop(queue, 1) == (["a"], False)
    assert pop(queue, 10) == (["b"], True)
    assert pop(queue, 10) == ([], True)
    assert bodies(queue.everything()) == ["sealed", "c"]
    assert queue.counts() == (2, 0, 2)


def test_pop_that_is_full_does_not_look_at_what_comes_next(queue):
    queue.post("a", "b")
    post_sealed(queue, "sealed")

    assert pop(queue, 2) == (["a", "b"], False)


def test_an_encrypted_message_that_is_not_free_is_not_in_the_way_of_pop(queue):
    post_sealed(queue, "sealed")
    claim = queue.claim()
    queue.post("a")
    assert pop(queue, 10) == (["a"], False)

    queue.delete(claim.messages[0].id, claim.id)
    assert pop(queue, 10) == ([], False)
