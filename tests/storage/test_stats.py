"""Statistics are exact after every change."""

from dataclasses import asdict

from queues.models import DeadLetter, Landmark, Stats


def test_an_empty_queue_has_zeros_and_no_landmarks(queue):
    assert queue.stats() == Stats(free=0, claimed=0, oldest=None, newest=None)
    queue.post("a")
    queue.pop()
    assert queue.stats() == Stats(free=0, claimed=0, oldest=None, newest=None)


def test_every_transition_is_counted(queue):
    posted = queue.fill(15)
    assert queue.counts() == (15, 0, 15)
    claim = queue.claim(10)
    assert queue.counts() == (5, 10, 15)
    queue.delete(posted[0], claim.id)
    assert queue.counts() == (5, 9, 14)
    queue.delete_many([posted[1], posted[2], "nonsense"])
    assert queue.counts() == (5, 7, 12)
    queue.delete_many([posted[3], posted[14], posted[14]])
    assert queue.counts() == (4, 6, 10)
    queue.renew(claim.id)
    assert queue.counts() == (4, 6, 10)
    queue.pop(2)
    assert queue.counts() == (2, 6, 8)
    queue.release(claim.id)
    assert queue.counts() == (8, 0, 8)
    queue.purge()
    assert queue.counts() == (0, 0, 0)


def test_b1_counts_never_go_negative(queue):
    queue.fill(3)
    first = queue.claim(1)
    queue.claim(1)
    queue.release(first.id)
    queue.claim(3)

    assert queue.counts() == (0, 3, 3)


def test_b3_statistics_survive_the_end_of_a_claim(queue):
    queue.fill(4)
    queue.claim(3, ttl=60)
    queue.clock.advance(60)

    assert queue.counts() == (4, 0, 4)
    queue.expire()
    assert queue.counts() == (4, 0, 4)
    queue.claim(1)
    assert queue.counts() == (3, 1, 4)


def test_delayed_messages_count_as_free(queue):
    queue.fill(2, delay=60)
    assert queue.counts() == (2, 0, 2)
    queue.clock.advance(60)
    assert queue.counts() == (2, 0, 2)


def test_expired_messages_do_not_count(queue):
    queue.fill(3, ttl=60)
    queue.post("a", ttl=61)
    queue.clock.advance(60)
    assert queue.counts() == (1, 0, 1)
    queue.clock.advance(1)
    assert queue.counts() == (0, 0, 0)


def test_landmarks_are_the_ends_of_the_queue(queue):
    (oldest,) = queue.post("a")
    queue.clock.advance(1)
    queue.post("b")
    queue.clock.advance(1)
    (newest,) = queue.post("c")
    now = queue.clock.now

    stats = queue.stats()
    assert stats.oldest == Landmark(id=oldest, created=now - 2000)
    assert stats.newest == Landmark(id=newest, created=now)
    assert (stats.oldest.age(now), stats.newest.age(now)) == (2, 0)


def test_one_message_is_both_ends(queue):
    (posted,) = queue.post("a")
    stats = queue.stats()
    assert stats.oldest == stats.newest == Landmark(id=posted, created=queue.clock.now)


def test_claimed_and_delayed_messages_are_landmarks_too(queue):
    (claimed,) = queue.post("claimed")
    queue.claim()
    queue.post("free")
    (delayed,) = queue.post("delayed", delay=60)

    stats = queue.stats()
    assert stats.oldest is not None
    assert stats.newest is not None
    assert (stats.oldest.id, stats.newest.id) == (claimed, delayed)


def test_landmarks_move_as_messages_go(queue):
    queue.post("short", ttl=60)
    second, third = queue.fill(2, ttl=120)
    queue.post("short", ttl=60)
    queue.clock.advance(60)

    stats = queue.stats()
    assert stats.oldest is not None
    assert stats.newest is not None
    assert (stats.oldest.id, stats.newest.id) == (second, third)
    queue.delete(third)
    assert queue.stats().newest == queue.stats().oldest


def test_b16_landmarks_tell_nothing_but_where_and_when(queue):
    queue.post("secret")
    queue.claim()

    assert set(asdict(queue.stats())) == {"free", "claimed", "oldest", "newest"}
    assert set(asdict(queue.stats())["oldest"]) == {"id", "created"}


def test_totals_are_the_sum_over_all_queues(queue):
    assert queue.store.totals(now=queue.clock.now) == Stats()
    queue.fill(3)
    queue.claim(2, ttl=60)
    queue.other().fill(4, ttl=120)
    queue.other(project="another").fill(5, delay=60)

    assert queue.store.totals(now=queue.clock.now) == Stats(free=10, claimed=2)
    queue.clock.advance(60)
    assert queue.store.totals(now=queue.clock.now) == Stats(free=12, claimed=0)
    queue.clock.advance(60)
    assert queue.store.totals(now=queue.clock.now) == Stats(free=8, claimed=0)
    queue.purge()
    queue.other(project="another").drop()
    assert queue.store.totals(now=queue.clock.now) == Stats()


def test_a_move_to_the_dead_letter_queue_is_counted_on_both_sides(queue):
    dead = queue.other("queue>dead")
    queue.fill(3)
    queue.release(queue.claim(2).id)

    queue.claim(1, dead_letter=DeadLetter(address=dead.address, max_claims=1))

    assert queue.counts() == (0, 1, 1)
    assert dead.counts() == (2, 0, 2)
    assert queue.store.totals(now=queue.clock.now) == Stats(free=2, claimed=1)
