"""Delayed messages: stored at once, free to claim later, in the place of their posting."""

from tests.storage.probe import bodies, ids


def test_a_delayed_message_is_hidden_until_exactly_its_time(queue):
    (posted,) = queue.post("a", delay=3)

    queue.clock.advance(3, ms=-1)
    assert queue.page() == []
    assert queue.try_claim().claim is None
    assert queue.pop() == []

    queue.clock.advance(ms=1)
    assert ids(queue.page()) == [posted]
    assert ids(queue.claim().messages) == [posted]


def test_a_delayed_message_can_be_seen_by_whoever_asks(queue):
    (posted,) = queue.post("a", delay=3)

    assert ids(queue.page(include_delayed=True)) == [posted]
    assert ids(queue.get(posted)) == [posted]
    assert queue.counts() == (1, 0, 1)


def test_each_message_has_its_own_delay_and_all_keep_their_places(queue):
    queue.post("late", delay=30)
    queue.post("soon", delay=10)
    queue.post("now")

    assert bodies(queue.page()) == ["now"]
    queue.clock.advance(10)
    assert bodies(queue.page()) == ["soon", "now"]
    queue.clock.advance(20)
    assert bodies(queue.claim().messages) == ["late", "soon", "now"]


def test_a_later_undelayed_message_is_claimed_first(queue):
    queue.post("delayed", delay=60)
    queue.post("ready")

    assert bodies(queue.claim().messages) == ["ready"]
    queue.clock.advance(60)
    assert bodies(queue.claim().messages) == ["delayed"]


def test_ttl_runs_from_posting_not_from_the_end_of_the_delay(queue):
    queue.post("a", ttl=60, delay=50)
    queue.clock.advance(59)
    assert bodies(queue.page()) == ["a"]
    queue.clock.advance(1)

    assert queue.everything() == []


def test_a_message_can_expire_before_its_delay_is_over(queue):
    queue.post("a", ttl=60, delay=900)
    queue.clock.advance(60)

    assert queue.everything() == []
    assert queue.counts() == (0, 0, 0)
    queue.clock.advance(900)
    assert queue.try_claim().claim is None


def test_a_matured_message_is_never_delayed_again(queue):
    queue.post("a", delay=60)
    queue.clock.advance(60)
    claim = queue.claim()
    queue.release(claim.id)

    assert bodies(queue.page()) == ["a"]
    assert bodies(queue.pop()) == ["a"]


def test_a_delayed_message_is_ready_on_time_whether_or_not_anybody_looked(queue):
    queue.post("a", delay=60)
    queue.clock.advance(1000)
    queue.post("b")

    assert bodies(queue.claim().messages) == ["a", "b"]
