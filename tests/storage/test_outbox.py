"""Tickets go to the outbox in the same step as the messages they are about, and only where somebody subscribed."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from queues.errors import FanOutChanged, KeyReused, QueueNotFound
from queues.models import NewMessage, Once, Posted
from tests.storage.moving import Passage
from tests.storage.pooled import connect
from tests.storage.probe import Probe, bodies, ids
from tests.storage.variants import over_drivers

pytestmark = over_drivers

TICKET = NewMessage(body=b"ticket", ttl=3600)


def post(queue: Probe, *texts: str, tickets: object = (), create: bool = True, key: str = "") -> Posted:
    """Post with the tickets of these texts, or with None."""
    messages = [NewMessage(body=text.encode(), ttl=60) for text in texts]
    once = Once(key=key, fingerprint=",".join(texts).encode(), window=600) if key else None
    written = (
        [NewMessage(body=text.encode(), ttl=3600) for text in tickets] if isinstance(tickets, list) else ()
    )
    return queue.store.post(
        queue.address,
        messages,
        now=queue.clock.now,
        once=once,
        create=create,
        tickets=None if tickets is None else written,
    )


def subscribe(queue: Probe, subscribed: bool = True) -> None:
    queue.store.subscribe(queue.address, "stamp")
    if not subscribed:
        queue.store.unsubscribe(queue.address, "stamp")


def boxes(queue: Probe) -> list[Probe]:
    """Return the outboxes of the store."""
    return [Probe(queue.store, queue.clock, address) for address in queue.store.outboxes()]


def tickets(queue: Probe) -> list[str]:
    """Return the bodies of all tickets, delayed ones included."""
    return [body for box in boxes(queue) for body in bodies(box.everything())]


def test_without_subscribers_no_ticket_is_written_and_none_is_taken(queue):
    post(queue, "a")
    with pytest.raises(FanOutChanged) as refusal:
        post(queue, "b", tickets=["of b"])

    assert refusal.value.subscribed is False
    assert bodies(queue.everything()) == ["a"]
    assert tickets(queue) == []


def test_with_subscribers_tickets_are_demanded(queue):
    subscribe(queue)
    with pytest.raises(FanOutChanged) as refusal:
        post(queue, "a")
    assert refusal.value.subscribed is True
    assert queue.everything() == []

    post(queue, "b", "c", tickets=["of b", "of c"])

    assert bodies(queue.everything()) == ["b", "c"]
    assert tickets(queue) == ["of b", "of c"]


def test_with_none_for_tickets_nobody_is_told(queue):
    post(queue, "a", tickets=None)
    subscribe(queue)
    post(queue, "b", tickets=None)

    assert bodies(queue.everything()) == ["a", "b"]
    assert tickets(queue) == []


def test_a_refused_post_leaves_its_key_free(queue):
    subscribe(queue)
    with pytest.raises(FanOutChanged):
        post(queue, "a", key="key")

    assert not post(queue, "a", tickets=["of a"], key="key").repeated
    assert tickets(queue) == ["of a"]


def test_a_repeated_post_is_not_told_again(queue):
    subscribe(queue)
    first = post(queue, "a", tickets=["of a"], key="key")
    again = post(queue, "a", tickets=["of a"], key="key")

    assert again.repeated
    assert list(again.ids) == list(first.ids)
    assert tickets(queue) == ["of a"]


def test_a_repeated_post_is_answered_whoever_subscribed_meanwhile(queue):
    first = post(queue, "a", key="one")
    subscribe(queue)
    assert list(post(queue, "a", key="one").ids) == list(first.ids)
    told = post(queue, "b", tickets=["of b"], key="two")
    subscribe(queue, False)
    assert list(post(queue, "b", tickets=["of b"], key="two").ids) == list(told.ids)

    assert tickets(queue) == ["of b"]


def test_a_key_that_was_used_for_something_else_tells_nobody(queue):
    subscribe(queue)
    post(queue, "a", tickets=["of a"], key="key")
    with pytest.raises(KeyReused):
        post(queue, "b", tickets=["of b"], key="key")

    assert tickets(queue) == ["of a"]


def test_a_queue_that_is_not_there_gets_neither_messages_nor_tickets(queue):
    with pytest.raises(QueueNotFound):
        post(queue, "a", tickets=["of a"], create=False)

    assert queue.everything() == []
    assert tickets(queue) == []


def test_subscribe_makes_the_queue(queue):
    subscribe(queue)
    post(queue, "a", tickets=["of a"], create=False)

    other = queue.other()
    subscribe(other, False)
    post(other, "b", create=False)

    assert (bodies(queue.everything()), bodies(other.everything())) == (["a"], ["b"])


def test_subscribe_leaves_what_the_queue_holds(queue):
    held = queue.fill(3)
    claim = queue.claim(1)
    subscribe(queue)
    subscribe(queue)

    assert ids(queue.everything()) == list(held)
    assert ids(queue.read_claim(claim.id).messages) == [held[0]]


def test_a_queue_that_a_post_makes_has_subscribers_if_there_are_tickets(queue):
    post(queue, "a", tickets=["of a"])
    with pytest.raises(FanOutChanged):
        post(queue, "b")

    other = queue.other()
    post(other, "c")
    with pytest.raises(FanOutChanged):
        post(other, "d", tickets=["of d"])
    assert tickets(queue) == ["of a"]


def test_who_leaves_is_not_told(queue):
    subscribe(queue)
    subscribe(queue, False)
    post(queue, "a")

    assert tickets(queue) == []


def test_who_leaves_takes_nobody_along_who_came_since(queue):
    for stamp in ("one", "two"):
        queue.store.subscribe(queue.address, stamp)
    for stamp in ("one", "", "three"):
        queue.store.unsubscribe(queue.address, stamp)
    post(queue, "a", tickets=["of a"])

    queue.store.unsubscribe(queue.address, "two")

    post(queue, "b")
    assert tickets(queue) == ["of a"]


def test_who_leaves_a_queue_that_is_not_there_does_not_make_it(queue):
    queue.store.unsubscribe(queue.address, "stamp")

    with pytest.raises(QueueNotFound):
        post(queue, "a", create=False)


def test_subscribers_are_of_one_queue(queue):
    subscribe(queue)
    for other in (queue.other(), queue.other(project="another"), queue.other("queue", project="another")):
        post(other, "a")
        post(other, "b")

    assert tickets(queue) == []


def test_subscribers_survive_a_purge(queue):
    subscribe(queue)
    post(queue, "a", tickets=["of a"])
    queue.purge()
    with pytest.raises(FanOutChanged):
        post(queue, "b")
    post(queue, "c", tickets=["of c"])

    assert bodies(queue.everything()) == ["c"]
    assert tickets(queue) == ["of a", "of c"]


def test_subscribers_are_forgotten_with_a_drop_and_tickets_are_not(queue):
    subscribe(queue)
    post(queue, "a", tickets=["of a"])
    queue.drop()
    queue.expire()
    post(queue, "b")

    assert bodies(queue.everything()) == ["b"]
    assert tickets(queue) == ["of a"]


def test_a_ticket_waits_for_its_delay(queue, clock):
    subscribe(queue)
    late = NewMessage(body=b"late", ttl=3600, delay=60)
    queue.store.post(queue.address, [TICKET], now=clock.now, tickets=[late, TICKET])

    def take() -> list[str]:
        claims = [box.try_claim(ttl=600).claim for box in boxes(queue)]
        return [body for claim in claims if claim is not None for body in bodies(claim.messages)]

    assert take() == ["ticket"]
    clock.advance(59)
    assert take() == []
    clock.advance(1)
    assert take() == ["late"]


def test_a_ticket_is_sealed_as_it_was_written(queue):
    subscribe(queue)
    sealed = NewMessage(body=b"\x00\xff", ttl=3600, sealed=True)
    queue.store.post(queue.address, [TICKET], now=queue.clock.now, tickets=[sealed])

    (kept,) = [message for box in boxes(queue) for message in box.everything()]
    assert (kept.body, kept.sealed) == (b"\x00\xff", True)


def test_outboxes_are_where_the_tickets_of_any_queue_went(queue):
    names = [f"q{number}" for number in range(40)]
    for name in names:
        post(queue.other(name), name, tickets=[name])

    assert sorted(tickets(queue)) == sorted(names)
    addresses = queue.store.outboxes()
    assert len(set(addresses)) == len(addresses)
    assert {address.project for address in addresses} == {""}


def test_tickets_that_were_dealt_with_are_gone(queue):
    subscribe(queue)
    post(queue, "a", tickets=["of a"])
    post(queue, "b", tickets=["of b"])
    for box in boxes(queue):
        claim = box.try_claim(1).claim
        if claim is not None:
            box.delete_many(ids(claim.messages))

    assert tickets(queue) == ["of b"]


@pytest.mark.parametrize("subscribed", [False, True])
def test_subscribers_move_with_their_queue(queue, driver, clock, tmp_path, subscribed):
    target = connect(f"sqlite:///{tmp_path / 'target.db'}", clock=clock)
    try:
        subscribe(queue, subscribed)
        passage = Passage(driver, target, queue.address).begin().catch_up()
        assert passage.land().subscribed == ("stamp" if subscribed else "")
        passage.open()

        there = Probe(target.messages, clock, queue.address)
        with pytest.raises(FanOutChanged):
            post(there, "a", tickets=[] if subscribed else ["of a"])
        post(there, "b", tickets=["of b"] if subscribed else [])
        assert tickets(there) == (["of b"] if subscribed else [])
        assert tickets(queue) == []
    finally:
        target.close()


def test_who_came_last_is_known_where_a_queue_arrives(queue, driver, clock, tmp_path):
    source = connect(f"sqlite:///{tmp_path / 'source.db'}", clock=clock)
    try:
        subscribe(Probe(source.messages, clock, queue.address))
        passage = Passage(source, driver, queue.address).begin().catch_up()
        passage.land()
        passage.open()

        queue.store.unsubscribe(queue.address, "another")
        post(queue, "a", tickets=["of a"])
        queue.store.unsubscribe(queue.address, "stamp")
        post(queue, "b")
        assert tickets(queue) == ["of a"]
    finally:
        source.close()


def test_who_subscribes_during_a_move_is_told_after_it(queue, driver, clock, tmp_path):
    target = connect(f"sqlite:///{tmp_path / 'target.db'}", clock=clock)
    try:
        passage = Passage(driver, target, queue.address).begin().catch_up()
        subscribe(queue)
        assert passage.land().subscribed == "stamp"
        passage.open()

        there = Probe(target.messages, clock, queue.address)
        post(there, "a", tickets=["of a"])
        assert tickets(there) == ["of a"]
    finally:
        target.close()


def test_who_posts_after_a_subscription_writes_a_ticket(queue):
    """Producers post without looking while somebody subscribes: none that begins later goes untold."""
    post(queue, "first")
    subscribed, enough = Event(), Event()
    posts = 8

    def produce(number: int) -> tuple[list[str], list[str]]:
        """Return what was posted with a ticket, and what was begun after the subscription."""
        told: list[str] = []
        after: list[str] = []
        while len(after) < posts:
            body = f"{number}/{len(told)}/{len(after)}"
            late = subscribed.is_set()
            if late:
                after.append(body)
            try:
                post(queue, body, tickets=[])
            except FanOutChanged:
                post(queue, body, tickets=[body])
                told.append(body)
            enough.set()
        return told, after

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(produce, number) for number in range(4)]
        assert enough.wait(30)
        subscribe(queue)
        subscribed.set()
        results = [future.result(timeout=60) for future in futures]

    told = [body for each, _ in results for body in each]
    after = [body for _, each in results for body in each]
    assert sorted(tickets(queue)) == sorted(told)
    assert set(after) <= set(told)
    assert len(after) == 4 * posts
    assert set(told) <= set(bodies(queue.everything()))
