"""Quirks of the protocol's first implementation that a store could have, and these do not.

Most of them have their tests beside the behaviour that they belong to, named after their
numbers; `tests/test_quirks_covered.py` sees to it that none is without one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queues.errors import ClaimNotFound, ClaimNotHeld, KeyReused, MessageClaimed
from queues.identity import message_id, split_id
from queues.models import DeadLetter, NewMessage, Record
from tests.storage.probe import Probe, bodies, ids
from tests.storage.variants import over_shared

CONFUSING = [".", "..", ":", "::", "{", "}", "{}", "/", "//", ">", "-", "_", "0", "1", "1:a", "a", "b", "a.b"]
COLLIDING = [
    "queues_set",
    "messages",
    "claims",
    "rank_counter",
    "subscriptions",
    "h",
    "m",
    "r",
    "due",
    "clock",
]

#: Names that look like keys, like parts of keys, and like each other.
queues = st.one_of(
    st.sampled_from([*CONFUSING, *COLLIDING]),
    st.lists(st.sampled_from([*CONFUSING, *COLLIDING]), min_size=2, max_size=3).map(".".join),
    st.lists(st.sampled_from([*CONFUSING, *COLLIDING]), min_size=2, max_size=3).map(":".join),
)
projects = st.one_of(
    queues,
    st.just(""),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6),
    st.text(alphabet="a.:{}/\\%*?[]\x00\n \xe9\u0301\N{SNOWMAN}\U0001f600", max_size=4),
)


@st.composite
def splits(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Draw addresses that are one text when they are joined, by the separator of somebody's keys."""
    separator = draw(st.sampled_from([".", ":", "/", "", "_", ">", "{}"]))
    parts = draw(st.lists(st.sampled_from([*CONFUSING, *COLLIDING]), min_size=3, max_size=5))
    cuts = [(separator.join(parts[:cut]), separator.join(parts[cut:])) for cut in range(1, len(parts))]
    return list(dict.fromkeys(cuts))


addresses = st.one_of(
    st.lists(st.tuples(projects, queues), min_size=2, max_size=4, unique=True),
    splits().filter(lambda found: len(found) > 1),
)

adversarial = settings(
    max_examples=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def intrude(intruder: Probe, known: list[str]) -> None:
    """Try all that one queue can do with what it knows of another: ids of messages and claims."""
    assert intruder.get(*known) == []
    for id_ in known:
        assert intruder.page(id_, include_claimed=True, include_delayed=True) in ([], intruder.everything())
        for claim_id in (None, *known):
            try:
                intruder.delete(id_, claim_id)
            except (ClaimNotHeld, MessageClaimed):
                continue
        for act in (intruder.read_claim, intruder.renew):
            with pytest.raises(ClaimNotFound):
                act(id_)
        intruder.release(id_)
    intruder.delete_many(known)
    intruder.delete_many(known, known)


@adversarial
@given(names=addresses, act=st.sampled_from(["purge", "drop", "pop", "intrude"]))
def test_a3_a4_addresses_share_nothing(queue: Probe, names: list[tuple[str, str]], act: str) -> None:
    """Each holds a free and a claimed message, a worn one and a key; one of them then does what it likes."""
    held: dict[Probe, list[str]] = {}
    tenants = [queue.other(name, project=project) for project, name in names]
    for tenant in tenants:
        tenant.drop()
    for number, tenant in enumerate(tenants):
        posted = tenant.post_once(f"key {number}", f"free {number}", key="one key for all")
        assert not posted.repeated
        held[tenant] = [*posted.ids, tenant.claim(1).id]
    seen = {tenant: (tenant.everything(), tenant.stats()) for tenant in tenants}
    for number, tenant in enumerate(tenants):
        assert bodies(tenant.everything()) == [f"key {number}", f"free {number}"]
        assert tenant.counts() == (1, 1, 2)

    actor, *others = tenants
    if act == "intrude":
        intrude(actor, [id_ for other in others for id_ in held[other]])
        others = tenants
    else:
        getattr(actor, act)()
    queue.expire()

    assert {other: (other.everything(), other.stats()) for other in others} == {
        other: seen[other] for other in others
    }
    for other in others:
        assert ids(other.read_claim(held[other][-1]).messages) == held[other][:1]
        with pytest.raises(KeyReused):
            other.post_once("something else", key="one key for all")


@adversarial
@given(names=addresses)
def test_a4_records_share_nothing(driver: Any, names: list[tuple[str, str]]) -> None:
    records = driver.records
    for kind in ("queue", "token"):
        for scope, name in names:
            records.remove(kind, scope, name)
    for kind in ("queue", "token"):
        for scope, name in names:
            assert records.insert(Record(kind=kind, scope=scope, name=name, data={"is": [kind, scope, name]}))

    (scope, name), *others = names
    for found_scope in {scope for scope, _ in names}:
        mine = sorted((name for scope, name in names if scope == found_scope), key=str.encode)
        assert [each.name for each in records.scan("queue", found_scope, limit=10)] == mine
        assert records.count("queue", found_scope) == len(mine)
    assert records.remove("queue", scope, name)
    assert records.fetch("token", scope, name).data == {"is": ["token", scope, name]}
    for scope, name in others:
        assert records.fetch("queue", scope, name).data == {"is": ["queue", scope, name]}
    for kind in ("queue", "token"):
        for scope, name in names:
            records.remove(kind, scope, name)
        assert {records.count(kind, scope) for scope, _ in names} == {0}


def test_b15_a_post_is_there_with_all_its_parts_or_not_at_all(queue: Probe) -> None:
    """Ids can be foretold, so somebody can look for a message before its post is answered."""
    (before,) = queue.post("before")
    place, generation = _parts(before)
    rounds, size = 25, 4
    over = threading.Event()

    def post() -> None:
        try:
            for number in range(rounds):
                queue.post(*(f"{number}.{n}" for n in range(size)))
        finally:
            over.set()

    def look() -> Iterator[int]:
        """Look at a post that is not there yet until it is."""
        number = 0
        while number < rounds:
            first = place + 1 + number * size
            batch = [message_id(each, generation) for each in range(first, first + size)]
            ended = over.is_set()
            found = ids(queue.get(*batch))
            assert found in ([], batch), "a part of a post"
            if found:
                assert [id_ for id_ in ids(queue.everything()) if id_ in batch] == batch, "not in the index"
                assert queue.counts()[2] % size == 1, "not counted as it is posted"
                number += 1
                yield number
            else:
                assert not ended, "a post that was answered is not there"

    with ThreadPoolExecutor(2) as threads:
        looked = threads.submit(lambda: list(look()))
        threads.submit(post).result(timeout=60)
        assert len(looked.result(timeout=60)) == rounds


def test_b15_a_post_that_is_refused_leaves_nothing(queue: Probe) -> None:
    queue.post_once("a", "b")
    before = queue.everything()

    with pytest.raises(KeyReused):
        queue.post_once("c", "d", "e")

    assert queue.everything() == before
    assert queue.counts() == (2, 0, 2)
    (following,) = queue.post("f")
    assert _parts(following)[0] == _parts(before[-1].id)[0] + 1


@over_shared
@pytest.mark.parametrize("known", [True, False])
def test_b15_a_post_that_breaks_half_way_leaves_nothing(queue: Probe, known: bool) -> None:
    if known:
        queue.post("a")
    before = (queue.everything(), queue.counts())
    batch = [
        NewMessage(body=b"1", ttl=60),
        NewMessage(body=b"2", ttl=10**30),
    ]  # no engine has such an integer

    with pytest.raises(OverflowError):
        queue.store.post(queue.address, batch, now=queue.clock.now, create=True)

    assert (queue.everything(), queue.counts()) == before
    queue.post("b")
    assert bodies(queue.everything())[-1] == "b"


def test_b14_nothing_of_a_queue_is_inherited(queue: Probe) -> None:
    """A claim, a delay, a hand-out, a key, and a client whose messages are hidden: all are of the queue that was."""
    dead = DeadLetter(address=queue.other("dead").address, max_claims=1)
    posted = queue.post_once("old", "old too")
    claim = queue.claim(1)
    queue.post("late", delay=60, client_id="me")

    queue.drop()
    again = queue.post_once("new")

    assert not again.repeated
    assert set(again.ids).isdisjoint(posted.ids)
    with pytest.raises(ClaimNotFound):
        queue.read_claim(claim.id)
    queue.release(claim.id)
    assert bodies(queue.page(hide_client="me")) == ["new"]
    (handed_out,) = queue.claim(ttl=30, dead_letter=dead).messages
    assert (handed_out.claim_count, handed_out.body) == (1, b"new")
    queue.clock.advance(61)
    queue.expire()
    assert queue.everything() == []
    assert queue.other("dead").everything() == []


def _parts(id_: str) -> tuple[int, str]:
    parts = split_id(id_)
    assert parts is not None
    return parts
