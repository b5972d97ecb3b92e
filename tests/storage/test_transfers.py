"""Transfers of whole queues: what each driver promises by itself, and moves between all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest

from queues.errors import (
    ClaimNotFound,
    FanOutChanged,
    KeyReused,
    MessageClaimed,
    MoveInterrupted,
    QueueMoved,
    QueueNotFound,
)
from queues.identity import message_id, place_of
from queues.models import (
    Address,
    Cargo,
    DeadLetter,
    KeptClaim,
    KeptMessage,
    Lease,
    NewMessage,
    Once,
    Outline,
    Selection,
)
from queues.ports import Driver
from storage.registry import connect
from tests.storage.moving import (
    Copy,
    Furnished,
    Passage,
    Stores,
    carry,
    furnish,
    kept_in,
    new_address,
    new_move,
    seal,
    seen,
)
from tests.storage.probe import Probe, bodies, ids
from tests.storage.variants import VARIANTS

HOUR = 3600  # seconds that a queue which moved away stays shut


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.name)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Iterator[Stores]:
    opened = Stores(tmp_path_factory.mktemp("stores"))
    yield opened
    opened.close()


@pytest.fixture
def clock(stores):
    return stores.clock


@pytest.fixture
def driver(stores, variant):
    """A store that other tests have used before."""
    return stores.open(variant)


@pytest.fixture
def new_driver(variant, tmp_path, clock) -> Iterator[Driver]:
    """A store that nobody has used before."""
    opened = connect(variant.uri(tmp_path), timeout=10.0, clock=clock)
    yield opened
    opened.close()


def probe(driver: Driver, clock: Any, address: Address | None = None) -> Probe:
    return Probe(driver.messages, clock, address or new_address())


@pytest.fixture
def queue(driver, clock):
    return probe(driver, clock)


@pytest.fixture
def furnished(queue):
    return furnish(queue)


@pytest.fixture
def transfers(driver):
    return driver.transfers


def shut(driver: Driver, queue: Probe) -> str:
    """Shut a queue and return the id of the move."""
    move = new_move()
    driver.transfers.depart(queue.address, move)
    driver.transfers.shut(queue.address, move)
    return move


def generation_of(id_: str) -> str:
    return id_[16:]


# depart


def test_depart_makes_the_queue(queue, transfers):
    generation = transfers.depart(queue.address, new_move())

    posted = queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now).ids
    assert list(posted) == [message_id(1, generation)]


def test_depart_returns_the_generation_of_a_queue_and_changes_nothing_in_it(furnished, transfers):
    queue = furnished.queue
    before = seen(queue, furnished.held, furnished.other)

    generation = transfers.depart(queue.address, new_move())

    assert generation == generation_of(furnished.ready[0])
    assert seen(queue, furnished.held, furnished.other) == before


def test_depart_may_be_repeated_and_nothing_is_forgotten(furnished, driver):
    queue = furnished.queue
    copy = Copy(driver.transfers, queue.address).depart().catch_up()
    queue.delete(furnished.ready[0])
    copy.depart()
    queue.post("new")
    copy.catch_up()

    again = Copy(driver.transfers, queue.address).depart().catch_up()

    assert copy.contents(queue.clock.now) == again.contents(queue.clock.now)


def test_a_later_move_ends_an_earlier_one(furnished, transfers):
    address = furnished.queue.address
    earlier = Copy(transfers, address).depart().catch_up()
    later = Copy(transfers, address).depart()

    for cursor in ("", earlier.cursor):
        with pytest.raises(MoveInterrupted):
            transfers.export(address, earlier.move, cursor=cursor, limit=10)
    with pytest.raises(MoveInterrupted):
        transfers.shut(address, earlier.move)
    transfers.reopen(address, earlier.move)
    transfers.discard(address, earlier.move)
    transfers.retire(address, earlier.move, now=furnished.queue.clock.now)

    assert later.catch_up().messages
    assert transfers.shut(address, later.move).last == later.catch_up().contents(0)[0].popitem()[0]


def test_two_queues_depart_at_once(queue, transfers):
    one, other = queue.other("one"), queue.other("other")
    copies = []
    for each in (one, other):
        each.fill(3)
        copies.append(Copy(transfers, each.address).depart().catch_up())
    one.post("new")
    other.pop(2)
    for copy in copies:
        copy.catch_up()

    assert [sorted(copy.messages) for copy in copies] == [[1, 2, 3, 4], [3]]
    transfers.reopen(one.address, copies[0].move)
    other.pop(1)
    assert copies[1].catch_up().messages == {}


def test_a_queue_that_is_shut_cannot_depart(queue, driver):
    queue.fill(1)
    move = shut(driver, queue)

    for again in (move, new_move()):
        with pytest.raises(QueueMoved) as caught:
            driver.transfers.depart(queue.address, again)
        assert (caught.value.address, caught.value.move) == (queue.address, move)


# export


def expected(furnished: Furnished) -> dict[int, KeptMessage]:
    """Return what a store must say of each message, by what it shows to everybody."""
    queue = furnished.queue
    messages = {}
    for message in queue.everything():
        place = place_of(message.id, generation_of(message.id))
        assert place is not None
        messages[place] = KeptMessage(
            place=place,
            body=message.body,
            created=message.created,
            expires=message.expires,
            visible=message.created + 60_000 if message.id in furnished.delayed else 0,
            client_id=message.client_id,
            sealed=message.sealed,
            claim_id=message.claim_id,
            claim_count=message.claim_count,
        )
    return messages


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_export_covers_everything(furnished, driver, limit):
    queue = furnished.queue

    copy = Copy(driver.transfers, queue.address).depart().catch_up(limit)

    messages, claims, posts = copy.contents(queue.clock.now)
    assert messages == expected(furnished)
    assert sum(message.claim_id is not None for message in messages.values()) == 3
    assert sum(message.visible > 0 for message in messages.values()) == 3
    assert [message.body for message in messages.values() if message.sealed] == [b"secret"]
    assert claims == {
        claim.id: KeptClaim(
            id=claim.id,
            ttl=claim.ttl,
            renewed=claim.renewed,
            expires=claim.expires,
            places=[int(message.id[:16], 16) for message in queue.read_claim(claim.id).messages],
        )
        for claim in (furnished.held, furnished.other)
    }
    assert {key: (post.fingerprint, post.count, post.first) for key, post in posts.items()} == {
        "key": (b"a,b", 2, int(furnished.posted[0][:16], 16)),
        "k:\N{SNOWMAN}": (b"c", 1, int(furnished.brief_post[0][:16], 16)),
    }
    assert [post.expires - queue.clock.now for _, post in sorted(posts.items())] == [60_000, 600_000]


def test_export_tells_what_changed_between_any_two_parts(furnished, driver):
    queue = furnished.queue
    copy = Copy(driver.transfers, queue.address).depart()
    caught_up, changes = False, 0
    while not caught_up:
        caught_up = copy.part(1).caught_up and changes >= 12
        if changes < 12:
            changes += 1
            queue.post("new")
            queue.release(queue.claim(1).id)
            queue.delete_many([queue.claim(1, ttl=500).messages[0].id])
            queue.post_once("x", key=f"key {changes}")

    again = Copy(driver.transfers, queue.address).depart().catch_up()

    assert copy.contents(queue.clock.now) == again.contents(queue.clock.now)


def _key_anew(furnished: Furnished) -> None:
    furnished.queue.clock.advance(60)
    assert not furnished.queue.post_once("d", key="k:\N{SNOWMAN}").repeated


def _refused(furnished: Furnished) -> None:
    with suppress(KeyReused):
        furnished.queue.post_once("other", key="key")
        pytest.fail("a key was used for something else")
    with suppress(MessageClaimed):
        furnished.queue.delete(furnished.held.messages[0].id)
        pytest.fail("a message was deleted that a claim holds")
    with suppress(ClaimNotFound):
        furnished.queue.renew("0" * 32)
        pytest.fail("a claim was renewed that is not there")


def _after(seconds: float, look: Callable[[Probe], object]) -> Callable[[Furnished], object]:
    def act(furnished: Furnished) -> object:
        furnished.queue.clock.advance(seconds)
        return look(furnished.queue)

    return act


def _bury(furnished: Furnished) -> None:
    """Let dead letters go out, of which one was claimed before."""
    queue = furnished.queue
    dead = queue.other("queue>dead")
    queue.release(furnished.other.id)
    queue.release(queue.claim(3).id)
    letter = DeadLetter(address=dead.address, max_claims=1)
    assert queue.try_claim(2, dead_letter=letter).dead_lettered == 3


def _receive(furnished: Furnished) -> None:
    """Let dead letters come in, with a life of their own and without."""
    source = furnished.queue.other("queue>source")
    for ttl in (None, 50):
        source.fill(2)
        source.release(source.claim(2).id)
        letter = DeadLetter(address=furnished.queue.address, max_claims=1, ttl=ttl)
        assert source.try_claim(2, dead_letter=letter).dead_lettered == 2


#: What may happen to a queue; each changes it, but those in UNCHANGING.
CHANGES: dict[str, Callable[[Furnished], object]] = {
    "post": lambda it: it.queue.fill(3),
    "post of a delayed one": lambda it: it.queue.post("later", delay=600),
    "post of a sealed one": lambda it: seal(it.queue, b"more"),
    "post with a key": lambda it: it.queue.post_once("d", key="new"),
    "post with a key that is over": _key_anew,
    "post repeated": lambda it: it.queue.post_once("a", "b", key="key"),
    "refusals": _refused,
    "delete": lambda it: it.queue.delete(it.ready[1]),
    "delete by the holder": lambda it: it.queue.delete(it.held.messages[0].id, it.held.id),
    "delete of all that a claim holds": lambda it: it.queue.delete_many(ids(it.held.messages)),
    "delete many": lambda it: it.queue.delete_many([*it.ready[1:3], it.delayed[0], it.held.messages[1].id]),
    "pop": lambda it: it.queue.pop(3),
    "claim": lambda it: it.queue.claim(3),
    "claim with grace": lambda it: it.queue.claim(4, ttl=9000, grace=90),
    "renew": lambda it: it.queue.renew(it.held.id, ttl=8000, grace=70),
    "release": lambda it: it.queue.release(it.held.id),
    "release of what is over": _after(90, lambda queue: queue.try_claim(1)),
    "claims over": _after(300, lambda queue: queue.stats()),
    "delays over": _after(60, lambda queue: queue.page()),
    "messages gone": _after(200, lambda queue: queue.pop(1)),
    "all gone": _after(9000, lambda queue: queue.everything()),
    "claims over, by the janitor": _after(300, lambda queue: queue.expire()),
    "delays over, by the janitor": _after(60, lambda queue: queue.expire()),
    "all gone, by the janitor": _after(9000, lambda queue: queue.expire()),
    "all gone, by counting": _after(9000, lambda queue: queue.store.totals(now=queue.clock.now)),
    "dead letters out": _bury,
    "dead letters in": _receive,
    "everything deleted": lambda it: it.queue.delete_many(ids(it.queue.everything())),
}
#: These change nothing, or need not change anything in a store that does not tidy up.
UNCHANGING = {"post repeated", "refusals", *(name for name in CHANGES if " over" in name or "gone" in name)}


@pytest.mark.parametrize("name", CHANGES)
def test_export_tells_what_changed_since(furnished, driver, name):
    queue = furnished.queue
    copy = Copy(driver.transfers, queue.address).depart().catch_up()
    before = copy.contents(queue.clock.now)

    CHANGES[name](furnished)
    changed = copy.catch_up(2).contents(queue.clock.now)

    again = Copy(driver.transfers, queue.address).depart().catch_up()
    assert changed == again.contents(queue.clock.now)
    assert changed != before or name in UNCHANGING
    assert again.part(10) == Cargo(cursor=again.cursor, caught_up=True)


def test_export_tells_what_went_to_the_dead_letters(queue, driver):
    queue.fill(3)
    queue.release(queue.claim(2).id)
    copy = Copy(driver.transfers, queue.address).depart().catch_up()
    letter = DeadLetter(address=queue.other("queue>dead").address, max_claims=1)

    assert queue.try_claim(1, dead_letter=letter).dead_lettered == 2

    assert copy.catch_up().messages.keys() == {3}


def test_a_copy_catches_up_with_a_queue_that_is_never_idle(furnished, driver):
    copy = Copy(driver.transfers, furnished.queue.address).depart().catch_up()

    for _ in range(3):
        furnished.queue.post("new")
        assert copy.part(10).caught_up


def test_a_cargo_has_about_as_much_as_was_asked_for(queue, driver):
    for _ in range(10):
        queue.fill(200)
        queue.claim(4)
    for number in range(600):
        queue.post_once("1", key=f"key {number}")
    copy = Copy(driver.transfers, queue.address).depart()
    sizes, parts = [], 0
    while not copy.part(50).caught_up:
        parts += 1
        sizes.append(len(copy.messages))

    assert len(copy.messages) == 2600
    if parts > 3:  # a store that tells everything at once is the other choice
        assert all(after - before <= 100 for before, after in pairwise(sizes))


def test_export_of_a_move_that_is_not_there_is_interrupted(furnished, queue, transfers):
    for address in (queue.address, queue.other("absent").address):
        with pytest.raises(MoveInterrupted):
            transfers.export(address, new_move(), cursor="", limit=10)
        with pytest.raises(MoveInterrupted):
            transfers.shut(address, new_move())


@pytest.mark.parametrize("way", ["purge", "drop", "drop and post", "reopen"])
@pytest.mark.parametrize("late", [False, True])
def test_a_move_is_over_with_a_purge_or_a_drop(new_driver, clock, way, late):
    queue, transfers = probe(new_driver, clock), new_driver.transfers
    furnish(queue)
    copy = Copy(transfers, queue.address).depart()
    if late:
        copy.catch_up()
    queue.pop(2)
    clock.advance(70)  # so that more changes at the last moment

    if way == "purge":
        queue.purge()
    elif way == "reopen":
        transfers.reopen(queue.address, copy.move)
    else:
        queue.drop()
    if "post" in way:
        queue.fill(2)

    with pytest.raises(MoveInterrupted):
        copy.part(10)
    with pytest.raises(MoveInterrupted):
        transfers.shut(queue.address, copy.move)
    transfers.reopen(queue.address, copy.move)
    assert len(queue.everything()) == {"purge": 0, "drop": 0, "drop and post": 2, "reopen": 13}[way]
    queue.post("on")
    assert bodies(queue.everything())[-1] == "on"
    assert {"departing", "triggers", "q", "log"}.isdisjoint(kept_in(new_driver))
    while queue.expire():
        pass
    assert {"touched", "departing", "triggers", "q", "log"}.isdisjoint(kept_in(new_driver))


# shut


def operations(queue: Probe, furnished: Furnished) -> dict[str, Callable[[], object]]:
    """Return every method of the message store but `drop`, `watch`, `expire` and `totals`."""
    store, address, now = queue.store, queue.address, queue.clock.now
    id_, claim = furnished.ready[0], furnished.held.id
    batch, lease = [NewMessage(body=b"1", ttl=60)], Lease(ttl=60, grace=60)
    once = Once(key="key", fingerprint=b"a,b", window=60)
    elsewhere = replace(
        lease, dead_letter=DeadLetter(address=queue.other("queue>dead").address, max_claims=1)
    )
    return {
        "post": lambda: store.post(address, batch, now=now),
        "post and create": lambda: store.post(address, batch, now=now, create=True),
        "post again": lambda: store.post(address, batch, now=now, once=once),
        "post with tickets": lambda: store.post(address, batch, now=now, tickets=batch),
        "subscribe": lambda: store.subscribe(address, "stamp"),
        "unsubscribe": lambda: store.unsubscribe(address, "stamp"),
        "get": lambda: store.get(address, [id_], now=now),
        "get nothing": lambda: store.get(address, [], now=now),
        "list": lambda: store.list(address, Selection(), now=now),
        "list behind nothing": lambda: store.list(address, Selection(marker="x" * 32), now=now),
        "delete": lambda: store.delete(address, id_, now=now),
        "delete with a claim": lambda: store.delete(address, id_, now=now, claim_id=claim),
        "delete many": lambda: store.delete_many(address, [id_], now=now),
        "delete many with claims": lambda: store.delete_many(address, [id_], now=now, claim_ids=[claim]),
        "pop": lambda: store.pop(address, 1, now=now),
        "claim": lambda: store.claim(address, lease, now=now),
        "claim with dead letters": lambda: store.claim(address, elsewhere, now=now),
        "read a claim": lambda: store.read_claim(address, claim, now=now),
        "renew": lambda: store.renew(address, claim, lease, now=now),
        "release": lambda: store.release(address, claim, now=now),
        "outlook": lambda: store.outlook(address, now=now),
        "stats": lambda: store.stats(address, now=now),
        "purge": lambda: store.purge(address, now=now),
    }


def refuses(queue: Probe, furnished: Furnished, move: str) -> None:
    """Check that nobody is let at a queue."""
    for name, operation in operations(queue, furnished).items():
        with pytest.raises(QueueMoved) as caught:
            operation()
        assert (name, caught.value.address, caught.value.move) == (name, queue.address, move)


def test_nobody_is_let_at_a_queue_that_is_shut_and_reopening_restores_it(furnished, driver):
    queue = furnished.queue
    before = seen(queue, furnished.held, furnished.other, markers=[furnished.deleted, furnished.ready[1]])
    move = shut(driver, queue)

    refuses(queue, furnished, move)
    driver.transfers.reopen(queue.address, new_move())
    refuses(queue, furnished, move)
    driver.transfers.reopen(queue.address, move)

    after = seen(queue, furnished.held, furnished.other, markers=[furnished.deleted, furnished.ready[1]])
    assert after == before
    assert list(queue.post_once("a", "b", key="key").ids) == list(furnished.posted)
    driver.transfers.reopen(queue.address, move)
    assert seen(queue)[0] == before[0]


def test_the_outline_says_how_much_there_is_and_stays_the_same(furnished, driver):
    queue, transfers = furnished.queue, driver.transfers
    copy = Copy(transfers, queue.address).depart()
    queue.delete(queue.post("last")[0])
    free, claimed, _ = queue.counts()

    outline = transfers.shut(queue.address, copy.move)

    last = int(furnished.sealed[0][:16], 16) + 1
    assert outline == Outline(last=last, subscribed="", free=free, claimed=claimed)
    copy.catch_up()
    queue.clock.advance(10_000)
    queue.expire()
    assert transfers.shut(queue.address, copy.move) == outline
    again = Copy(transfers, queue.address, move=copy.move).catch_up()
    assert again.contents(0)[0] == copy.contents(0)[0]
    assert len(again.messages) == free + claimed


def test_the_janitor_leaves_a_queue_alone_that_is_shut_and_it_does_not_count(new_driver, clock):
    queue = probe(new_driver, clock)
    furnished = furnish(queue)
    queue.other("open").fill(2, ttl=100_000)
    move = shut(new_driver, queue)

    def total() -> int:
        return queue.store.totals(now=clock.now).total

    assert total() == 2
    clock.advance(300)
    while queue.expire(limit=2) >= 2:
        pass
    held = Copy(new_driver.transfers, queue.address, move=move).catch_up()
    assert len(held.messages) == 18
    assert total() == 2

    new_driver.transfers.reopen(queue.address, move)
    assert total() == 2 + queue.counts()[2] == 2 + 12
    assert queue.counts()[1] == 0
    assert [queue.get(id_) for id_ in furnished.brief] == [[], []]


def test_time_goes_on_for_a_queue_that_was_shut(queue, driver):
    queue.fill(2, ttl=100)
    queue.fill(1, ttl=100_000)
    (delayed,) = queue.post("delayed", delay=100, ttl=100_000)
    queue.fill(1, ttl=100_000, client_id="one")
    claim = queue.claim(4, ttl=50, grace=0)
    move = shut(driver, queue)
    queue.clock.advance(100)

    driver.transfers.reopen(queue.address, move)

    assert queue.counts() == (3, 0, 3)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    assert ids(queue.pop(10))[1] == delayed


def test_dead_letters_do_not_go_into_a_queue_that_is_shut(queue, driver):
    dead = queue.other("queue>dead")
    dead.fill(1)
    queue.fill(3)
    queue.release(queue.claim(2).id)
    before, dead_before = seen(queue), seen(dead)
    move = shut(driver, dead)
    letter = DeadLetter(address=dead.address, max_claims=1)

    for _ in range(2):
        with pytest.raises(QueueMoved) as caught:
            queue.try_claim(3, dead_letter=letter)
        assert (caught.value.address, caught.value.move) == (dead.address, move)
        assert seen(queue) == before

    driver.transfers.reopen(dead.address, move)
    assert seen(dead) == dead_before
    assert queue.try_claim(3, dead_letter=letter).dead_lettered == 2


def test_claims_that_bury_nothing_need_no_dead_letter_queue(queue, driver):
    dead = queue.other("queue>dead")
    dead.fill(1)
    queue.fill(3)
    shut(driver, dead)

    claim = queue.claim(2, dead_letter=DeadLetter(address=dead.address, max_claims=1))

    assert bodies(claim.messages) == ["1", "2"]


def test_a_queue_that_is_shut_can_be_dropped(furnished, driver):
    queue = furnished.queue
    move = shut(driver, queue)

    queue.drop()

    assert queue.everything() == []
    with pytest.raises(QueueNotFound):
        queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)
    driver.transfers.reopen(queue.address, move)
    (new,) = queue.post("new")
    assert generation_of(new) != generation_of(furnished.ready[0])
    assert ids(queue.everything()) == [new]
    driver.transfers.retire(queue.address, move, now=queue.clock.now)
    driver.transfers.discard(queue.address, move)
    assert ids(queue.everything()) == [new]


# retire


def test_what_a_queue_held_is_given_back_when_it_is_retired(new_driver, clock):
    queue = probe(new_driver, clock)
    furnished = furnish(queue)
    before = kept_in(new_driver)
    move = shut(new_driver, queue)

    for _ in range(2):
        new_driver.transfers.retire(queue.address, move, now=clock.now)
        refuses(queue, furnished, move)
    clock.advance(601)  # until the last idempotency key is over
    while queue.expire(limit=3) >= 3:
        pass

    assert before
    assert kept_in(new_driver) == {}
    refuses(queue, furnished, move)
    with pytest.raises(MoveInterrupted):
        new_driver.transfers.export(queue.address, move, cursor="", limit=10)
    with pytest.raises(MoveInterrupted):
        new_driver.transfers.shut(queue.address, move)


def test_a_queue_that_was_retired_is_forgotten_after_an_hour(driver, variant, queue):
    queue.fill(3)
    move = shut(driver, queue)
    driver.transfers.retire(queue.address, move, now=queue.clock.now)
    if not variant.forgets:  # the server does, by a clock that no test can move
        left = time_to_live(driver, queue)
        assert HOUR - 60 < left <= HOUR
        return

    queue.clock.advance(HOUR, ms=-1)
    queue.expire()
    with pytest.raises(QueueMoved):
        queue.stats()
    queue.clock.advance(ms=1)
    queue.expire()
    assert queue.counts() == (0, 0, 0)
    assert queue.fill(1)


def time_to_live(driver: Any, queue: Probe) -> int:
    """Return how long (s) a Redis will know of a queue."""
    from storage.redis_keys import base_key

    key = base_key(driver._link.prefix, queue.address) + ":h"
    seconds: int = driver._link.read(key, "TTL", key)
    return seconds


def test_reopening_a_queue_that_was_retired_makes_it_absent(furnished, driver):
    queue = furnished.queue
    move = shut(driver, queue)
    driver.transfers.retire(queue.address, move, now=queue.clock.now)
    driver.transfers.reopen(queue.address, new_move())
    refuses(queue, furnished, move)

    for _ in range(2):
        driver.transfers.reopen(queue.address, move)
        assert queue.everything() == []
        with pytest.raises(QueueNotFound):
            queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=queue.clock.now)

    (new,) = queue.post("new")
    assert generation_of(new) != generation_of(furnished.ready[0])
    assert not queue.post_once("a", "b", key="key").repeated
    if_shut = shut(driver, queue)
    driver.transfers.reopen(queue.address, if_shut)
    assert queue.counts() == (3, 0, 3)


def test_only_the_move_that_shut_a_queue_retires_it(queue, driver):
    queue.fill(2)
    driver.transfers.retire(queue.address, new_move(), now=queue.clock.now)
    departing = new_move()
    driver.transfers.depart(queue.address, departing)
    driver.transfers.retire(queue.address, departing, now=queue.clock.now)
    assert queue.counts() == (2, 0, 2)
    driver.transfers.shut(queue.address, departing)
    driver.transfers.retire(queue.address, new_move(), now=queue.clock.now)
    driver.transfers.reopen(queue.address, departing)

    assert queue.counts() == (2, 0, 2)


# admit, load, arrive, discard


def test_admit_makes_an_empty_queue_that_is_shut_in_place_of_what_was_there(furnished, driver):
    queue, transfers = furnished.queue, driver.transfers

    for _ in range(2):
        move = new_move()
        transfers.admit(queue.address, move, "0123456789abcdef")
        refuses(queue, furnished, move)
    transfers.reopen(queue.address, move)

    assert queue.everything() == []
    assert queue.counts() == (0, 0, 0)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(furnished.held.id)
    posted = queue.post_once("a", "b", key="key")
    assert not posted.repeated
    assert list(posted.ids) == [message_id(place, "0123456789abcdef") for place in (1, 2)]


@pytest.mark.parametrize("state", ["absent", "open", "departing", "shut", "admitted", "retired", "arrived"])
def test_only_the_move_that_admitted_a_queue_may_load_it(queue, driver, state):
    transfers, move = driver.transfers, new_move()
    message = KeptMessage(
        place=1,
        body=b"1",
        created=queue.clock.now,
        expires=queue.clock.now + 60_000,
        visible=0,
        client_id="",
        sealed=False,
        claim_id=None,
        claim_count=0,
    )
    cargo = Cargo(messages={1: message}, cursor="", caught_up=True)
    others = new_move()
    if state == "admitted":
        transfers.admit(queue.address, others, "0123456789abcdef")
    elif state != "absent":
        queue.fill(1)
    if state == "departing":
        transfers.depart(queue.address, move)
        transfers.reopen(queue.address, move)
    if state == "shut":
        shut(driver, queue)
    if state == "retired":
        transfers.depart(queue.address, move)
        transfers.shut(queue.address, move)
        transfers.retire(queue.address, move, now=queue.clock.now)
    if state == "arrived":
        transfers.admit(queue.address, move, "0123456789abcdef")
        transfers.arrive(queue.address, move, Outline(last=0, subscribed="", free=0, claimed=0))
        transfers.reopen(queue.address, move)

    with pytest.raises(MoveInterrupted):
        transfers.load(queue.address, move, cargo)
    with pytest.raises(MoveInterrupted):
        transfers.load(queue.address, move, Cargo(cursor="", caught_up=True))
    with pytest.raises(MoveInterrupted):
        transfers.arrive(queue.address, move, Outline(last=10, subscribed="", free=0, claimed=0))
    if state == "admitted":
        transfers.load(queue.address, others, cargo)


@pytest.mark.parametrize("state", ["absent", "there", "again"])
def test_a_queue_that_was_announced_is_admitted(queue, driver, state):
    transfers, move = driver.transfers, new_move()
    if state != "absent":
        queue.fill(2)
    transfers.depart(queue.address, move)
    if state == "again":
        transfers.admit(queue.address, move, "0123456789abcdef", announced=True)

    transfers.admit(queue.address, move, "0123456789abcdef", announced=True)

    transfers.arrive(queue.address, move, Outline(last=0, subscribed="", free=0, claimed=0))
    transfers.reopen(queue.address, move)
    assert queue.counts() == (0, 0, 0)


@pytest.mark.parametrize("state", ["never", "absent", "another move", "over", "made anew", "retired"])
def test_a_queue_that_came_after_the_announcement_is_not_overwritten(queue, driver, state):
    """A move that was overtaken must not take the place of what is there now."""
    transfers, move = driver.transfers, new_move()
    if state != "absent":
        queue.fill(2)
    if state not in ("never", "absent"):
        transfers.depart(queue.address, move)
    if state == "another move":
        transfers.depart(queue.address, new_move())
    if state == "over":
        transfers.reopen(queue.address, move)
    if state == "made anew":
        queue.drop()
        queue.fill(2)
    if state == "retired":
        transfers.shut(queue.address, move)
        transfers.retire(queue.address, move, now=queue.clock.now)

    with pytest.raises(MoveInterrupted):
        transfers.admit(queue.address, move, "0123456789abcdef", announced=True)

    if state == "retired":
        transfers.reopen(queue.address, move)
    assert queue.counts()[2] == (0 if state in ("absent", "retired") else 2)


def test_discard_drops_a_queue_for_the_move_that_shut_it_and_no_other(new_driver, clock):
    queue, transfers = probe(new_driver, clock), new_driver.transfers
    queue.fill(2)
    departing = new_move()
    transfers.discard(queue.address, departing)
    transfers.depart(queue.address, departing)
    transfers.discard(queue.address, departing)
    assert queue.counts() == (2, 0, 2)
    queue.post("more")
    assert Copy(transfers, queue.address, move=departing).catch_up().messages.keys() == {1, 2, 3}
    transfers.shut(queue.address, departing)
    transfers.discard(queue.address, new_move())
    with pytest.raises(QueueMoved):
        queue.stats()

    for _ in range(2):
        transfers.discard(queue.address, departing)
        assert queue.counts() == (0, 0, 0)
        with pytest.raises(QueueNotFound):
            queue.store.post(queue.address, [NewMessage(body=b"1", ttl=60)], now=clock.now)

    while queue.expire():
        pass
    assert kept_in(new_driver) == {}


# moves between drivers


PAIRS = [*product(VARIANTS, VARIANTS)]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].name}-to-{pair[1].name}")
def ends(request, stores) -> Any:
    source, target = request.param
    return stores.open(source), stores.open(target, "2")


@pytest.fixture
def source(ends, clock):
    return probe(ends[0], clock)


@pytest.fixture
def target(ends, source):
    return probe(ends[1], source.clock, source.address)


def test_a_queue_is_the_same_after_a_move(ends, source, target):
    it = furnish(source)
    markers = [it.deleted, it.ready[0], it.held.messages[0].id, it.delayed[2]]
    passage = Passage(ends[0], ends[1], source.address).begin()
    target.store.totals(now=source.clock.now)
    passage.part(2)
    source.post("during")
    source.delete(it.ready[2])
    passage.catch_up(2)
    source.release(it.other.id)
    third = source.claim(2, ttl=1000)
    source.renew(it.held.id, ttl=400, grace=10)
    source.delete(it.held.messages[1].id, it.held.id)
    deleted = source.post("passing")
    source.delete_many(deleted)
    before = seen(source, it.held, third, markers=markers)
    passage.land(2)
    for end in (source, target):
        with pytest.raises(QueueMoved):
            end.stats()
    passage.open()

    assert seen(target, it.held, third, markers=markers) == before
    with pytest.raises(ClaimNotFound):
        target.read_claim(it.other.id)
    with pytest.raises(QueueMoved):
        source.stats()
    assert ids(target.get(it.ready[0], it.ready[2])) == [it.ready[0]]
    assert target.post("next")[0] > deleted[0] > it.sealed[0]
    assert int(target.everything()[-1].id[:16], 16) == int(deleted[0][:16], 16) + 1


def test_leases_go_on_after_a_move(ends, source, target):
    it = furnish(source)
    one = source.claim(3, ttl=500)
    brief = source.claim(1, ttl=10, grace=5)
    order = ids(source.everything())
    carry(ends[0], ends[1], source.address, limit=3)

    target.renew(it.held.id, ttl=1000, grace=100)
    assert target.read_claim(it.held.id).expires == target.clock.now + 1_000_000
    target.delete(one.messages[0].id, one.id)
    with pytest.raises(MessageClaimed):
        target.delete(one.messages[1].id)
    target.delete_many([one.messages[1].id], [one.id])
    target.release(one.id)
    freed = one.messages[2]
    assert (target.only(freed.id).claim_id, target.only(freed.id).claim_count) == (None, freed.claim_count)

    target.clock.advance(10, ms=-1)
    assert ids(target.read_claim(brief.id).messages) == ids(brief.messages)
    target.clock.advance(ms=1)
    with pytest.raises(ClaimNotFound):
        target.read_claim(brief.id)
    gone = ids(one.messages[:2])
    assert ids(target.everything()) == [id_ for id_ in order if id_ not in gone]
    again = target.claim(2)
    assert ids(again.messages) == [freed.id, brief.messages[0].id]
    assert again.messages[1].claim_count == brief.messages[0].claim_count + 1
    assert ids(target.read_claim(it.held.id).messages) == ids(it.held.messages)
    target.release(again.id)
    letter = DeadLetter(address=target.other("queue>dead").address, max_claims=1)
    assert target.try_claim(1, dead_letter=letter).dead_lettered == 2


def test_what_is_due_falls_due_after_a_move(ends, source, target):
    it = furnish(source)
    carry(ends[0], ends[1], source.address, limit=5)

    target.clock.advance(60, ms=-1)
    assert set(it.delayed).isdisjoint(ids(target.page(limit=100)))
    target.clock.advance(ms=1)
    assert set(it.delayed) < set(ids(target.page(limit=100)))
    assert target.counts() == (12, 3, 15)  # what was posted with keys is gone
    target.clock.advance(30)
    assert target.counts() == (13, 2, 15)  # a claim is over
    target.clock.advance(60)
    assert target.counts() == (12, 2, 14)  # and so is what outlived an earlier one by its grace
    target.clock.advance(50, ms=-1)
    assert len(target.get(*it.brief)) == 2
    target.clock.advance(ms=1)
    assert target.get(*it.brief) == []


def test_keys_and_their_posts_are_known_after_a_move(ends, source, target):
    it = furnish(source)
    passage = Passage(ends[0], ends[1], source.address).begin().catch_up(2)
    late = source.post_once("late", key="late")
    source.delete(late.ids[0])
    passage.land(1)
    passage.open()

    for posted, *what in ((it.posted, "a", "b"), (late.ids, "late")):
        again = target.post_once(*what, key="key" if len(what) > 1 else "late")
        assert (again.repeated, list(again.ids)) == (True, list(posted))
    with pytest.raises(KeyReused):
        target.post_once("else", key="key")
    target.clock.advance(60)
    assert not target.post_once("d", key="k:\N{SNOWMAN}").repeated


def test_order_pops_and_echoes_are_the_same_after_a_move(ends, source, target):
    source.fill(5, client_id="me")
    (delayed,) = source.post("delayed", delay=30, client_id="me")
    source.post("seven", client_id="me")
    source.release(source.claim(1).id)
    source.delete(source.page(limit=2)[1].id)
    carry(ends[0], ends[1], source.address, limit=1)

    assert target.page(hide_client="me", include_delayed=True) == []
    target.post("mine", client_id="you")
    seal(target, b"secret")
    target.post("last", client_id="you")
    assert bodies(target.page(hide_client="me", include_delayed=True)) == ["mine", "secret", "last"]
    assert bodies(target.page(hide_client="you", include_delayed=True)) == [
        *("1", "3", "4", "5", "delayed", "seven", "secret"),
    ]
    target.clock.advance(30)
    assert bodies(target.pop(3)) == ["1", "3", "4"]
    popped = target.store.pop(target.address, 10, now=target.clock.now)
    assert bodies(popped.messages) == ["5", "delayed", "seven", "mine"]
    assert popped.sealed_next
    assert target.counts() == (2, 0, 2)
    assert delayed < target.everything()[0].id


def test_an_empty_queue_moves_with_its_place_and_its_generation(ends, source, target):
    *_, last = source.fill(4)
    source.pop(4)
    carry(ends[0], ends[1], source.address)

    assert target.counts() == (0, 0, 0)
    assert target.page(last) == []
    (new,) = target.store.post(target.address, [NewMessage(body=b"1", ttl=60)], now=target.clock.now).ids
    assert (new > last, generation_of(new)) == (True, generation_of(last))
    assert ids(target.page(last)) == [new]


@pytest.mark.parametrize("subscribed", [False, True])
def test_a_queue_has_subscribers_after_a_move_if_it_had_before(ends, source, target, subscribed):
    source.fill(1)
    if subscribed:
        source.store.subscribe(source.address, "stamp")
    carry(ends[0], ends[1], source.address)

    def post(*tickets: NewMessage) -> Any:
        return target.store.post(target.address, [ticket], now=target.clock.now, tickets=tickets)

    ticket = NewMessage(body=b"1", ttl=60)
    with pytest.raises(FanOutChanged):
        post(*[] if subscribed else [ticket])
    post(*[ticket] if subscribed else [])
    assert target.counts() == (2, 0, 2)


def test_a_queue_moves_there_and_back_again_with_its_claims(ends, source, target):
    it = furnish(source)
    before = seen(source, it.held, it.other)
    for _ in range(2):
        called_off = Passage(ends[0], ends[1], source.address).begin().catch_up()
        called_off.land()
        called_off.call_off()
        assert seen(source, it.held, it.other) == before
        assert target.counts() == (0, 0, 0)
        carry(ends[0], ends[1], source.address, limit=4)
        assert seen(target, it.held, it.other) == before
        carry(ends[1], ends[0], source.address, limit=4)
        assert seen(source, it.held, it.other) == before

    source.renew(it.held.id, ttl=700)
    while source.expire():  # what is left of earlier stays must not take along what is there
        pass
    assert ids(source.read_claim(it.held.id).messages) == ids(it.held.messages)
    source.release(it.held.id)
    source.delete(it.other.messages[0].id, it.other.id)
    assert source.counts() == (17, 0, 17)
    assert len(source.everything()) == 17


def test_every_step_of_a_move_may_be_repeated(ends, source, target):
    it = furnish(source)
    passage = Passage(ends[0], ends[1], source.address)
    for _ in range(2):
        passage.begin()
    for _ in range(3):
        passage.part(3, times=2)
    source.release(it.other.id)
    source.pop(1)
    while not passage.part(3, times=2):
        pass
    before = seen(source, it.held)
    outlines = [passage.land(3), passage.land(3)]
    for _ in range(2):
        ends[1].transfers.reopen(source.address, passage.move)
    for _ in range(2):
        ends[0].transfers.retire(source.address, passage.move, now=source.clock.now)

    assert outlines[0] == outlines[1]
    assert seen(target, it.held) == before
    with pytest.raises(QueueMoved):
        source.stats()


@pytest.mark.parametrize("back", [False, True])
def test_nothing_is_left_behind_by_a_move(tmp_path, clock, variant, back):
    near = connect(variant.uri(tmp_path), timeout=10.0, clock=clock)
    memory = connect("memory:", clock=clock)
    queue = probe(near, clock)
    furnish(queue)
    queue.fill(1, ttl=100_000)
    passage = Passage(near, memory, queue.address).begin().catch_up(3)
    queue.post("more")
    if back:
        passage.call_off()
        queue.expire()
        assert {"touched", "departing", "triggers", "q", "log"}.isdisjoint(kept_in(near))
        queue.delete_many(ids(queue.everything()))
    else:
        passage.land()
        passage.open()
    clock.advance(8000)
    while queue.expire():
        pass

    assert kept_in(near) == {}
    near.close()
