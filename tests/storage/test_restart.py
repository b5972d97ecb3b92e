"""What was answered is there after a restart."""

from contextlib import closing

import pytest

from queues.errors import ClaimNotFound
from queues.models import Record
from queues.ports import Driver
from tests.storage.pooled import connect
from tests.storage.probe import Clock, Probe, bodies, ids
from tests.storage.variants import over_shared_and_mixed

pytestmark = over_shared_and_mixed


@pytest.fixture
def restart(uri, clock):
    """Open the same store again, as the next process would; return the queue in it."""
    opened: list[Driver] = []

    def reopen():
        for driver in opened:
            driver.close()
        opened[:] = [connect(uri, clock=clock)]
        return Probe(opened[0].messages, clock)

    yield reopen
    for driver in opened:
        driver.close()


def test_p1_messages_claims_and_statistics_survive(restart):
    queue = restart()
    queue.fill(10, client_id="producer")
    claim = queue.claim(4)
    queue.release(queue.claim(2).id)
    queue.post("delayed", delay=60)
    before = (queue.everything(), queue.stats(), queue.read_claim(claim.id))

    queue = restart()

    assert (queue.everything(), queue.stats(), queue.read_claim(claim.id)) == before
    queue.delete(before[0][0].id, claim.id)
    queue.clock.advance(60)
    assert bodies(queue.claim(20).messages) == ["5", "6", "7", "8", "9", "10", "delayed"]


def test_p4_acknowledged_messages_stay_away(restart):
    queue = restart()
    posted = queue.fill(6)
    claim = queue.claim(2)
    queue.delete(posted[0], claim.id)
    queue.delete_many([posted[1], posted[2]])
    queue.pop(1)
    other = queue.other()
    other.fill(3)
    other.purge()

    queue = restart()

    assert ids(queue.everything()) == list(posted[4:])
    assert queue.other().everything() == []


def test_p3_leases_hold_and_end_on_time(restart):
    queue = restart()
    queue.fill(2)
    claim = queue.claim(1, ttl=60)
    queue = restart()
    assert bodies(queue.claim(ttl=600).messages) == ["2"]
    queue.clock.advance(60)
    queue = restart()

    with pytest.raises(ClaimNotFound):
        queue.renew(claim.id)
    assert bodies(queue.claim().messages) == ["1"]


def test_p6_markers_and_places_go_on(restart):
    queue = restart()
    posted = queue.fill(3)
    queue.pop(3)
    queue = restart()
    later = queue.post("later")

    assert later[0] > posted[-1]
    assert ids(queue.page(posted[-1])) == list(later)


def test_p10_repeats_are_recognised(restart):
    first = restart().post_once("a")
    queue = restart()

    assert list(queue.post_once("a").ids) == list(first.ids)
    assert queue.counts() == (1, 0, 1)


def test_records_survive(uri):
    record = Record(kind="queue", scope="p", name="n", data={"a": 1})
    with closing(connect(uri)) as driver:
        driver.records.insert(record)
        driver.records.replace(record)

    with closing(connect(uri)) as driver:
        assert driver.records.fetch("queue", "p", "n") == Record(
            kind="queue", scope="p", name="n", data={"a": 1}, revision=1
        )


def test_two_that_are_open_at_once_see_each_other_at_once(uri):
    clock = Clock()
    with closing(connect(uri, clock=clock)) as one, closing(connect(uri, clock=clock)) as two:
        here, there = Probe(one.messages, clock), Probe(two.messages, clock)
        posted = here.fill(4)
        assert ids(there.everything()) == list(posted)
        claim = there.claim(2)
        assert here.counts() == (2, 2, 4)
        here.delete(posted[0], claim.id)
        assert ids(there.read_claim(claim.id).messages) == [posted[1]]
        clock.advance(300)
        assert ids(here.claim(1).messages) == [posted[1]]
        assert there.counts() == (2, 1, 3)
        here.drop()
        assert there.everything() == []
        assert list(there.fill(1)) == ids(here.everything())
