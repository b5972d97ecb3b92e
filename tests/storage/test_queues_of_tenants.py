"""Tenants never meet (P8): no name, however chosen, leads into another queue."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from queues.errors import ClaimNotFound, ClaimNotHeld, MessageClaimed
from queues.models import DeadLetter
from tests.storage.probe import bodies, ids

ADDRESSES = [
    ("a", "b.c"),
    ("a.b", "c"),
    ("", "a.b.c"),
    ("a.b.c", "."),
    ("a", "b"),
    ("a", "b."),
    ("a", "B"),
    ("A", "b"),
    ("", "b"),
    ("", "a"),
    ("a", "queues_set"),
    ("", "queues_set"),
    ("a", "b.messages"),
    ("a", "b.claims"),
    ("a", "b.rank_counter"),
    ("a", "b.subscriptions"),
    ("a", "a"),
    ("a" * 256, "b" * 64),
    ("a" * 255, "b" * 64),
    ("a:b", "c"),
    ("a/b", "c"),
    ("a\x00b", "c"),
    ("a\x00", "c"),
    ("{a}", "b"),
    ("%", "b"),
    ("_", "b"),
    ("*", "b"),
    ("a' OR '1'='1", "b"),
    ("None", "b"),
    ("null", "b"),
    ("0", "0"),
    ("0", "00"),
    ("caf\xe9", "b"),
    ("cafe\u0301", "b"),
    ("\N{SNOWMAN}", "b"),
    ("\U0001f600", "b"),
    (" a", "b"),
    ("a ", "b"),
    ("a\n", "b"),
]

names = st.tuples(
    st.one_of(
        st.sampled_from(sorted({project for project, _ in ADDRESSES})),
        st.text(alphabet="ab.:/_-\x00{}%*\xe9", max_size=6),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    st.one_of(
        st.sampled_from(sorted({queue for _, queue in ADDRESSES})),
        st.text(alphabet="ab._-0", min_size=1, max_size=6),
    ),
)


def intrude(intruder, message_id, claim_id):
    """Try everything that a tenant can do with ids that are not its own."""
    assert intruder.get(message_id) == []
    assert intruder.page(message_id, include_claimed=True, include_delayed=True) == []
    for known_claim in (None, claim_id):
        with suppress(ClaimNotHeld, MessageClaimed):
            intruder.delete(message_id, known_claim)
    intruder.delete_many([message_id, claim_id])
    with suppress(MessageClaimed):
        intruder.delete_many([message_id, claim_id], claim_ids=[claim_id])
    with pytest.raises(ClaimNotFound):
        intruder.read_claim(claim_id)
    with pytest.raises(ClaimNotFound):
        intruder.renew(claim_id)
    intruder.release(claim_id)


def test_a4_queues_with_confusable_names_are_apart(queue):
    tenants = [queue.other(name, project=project) for project, name in ADDRESSES]
    for number, tenant in enumerate(tenants):
        tenant.post(str(number))

    for number, tenant in enumerate(tenants):
        assert bodies(tenant.everything()) == [str(number)]
        assert tenant.counts() == (1, 0, 1)


def test_a4_emptying_a_queue_touches_no_confusable_one(queue):
    tenants = [queue.other(name, project=project) for project, name in ADDRESSES]
    for tenant in tenants:
        tenant.fill(2)
        tenant.claim(1)

    for number, tenant in enumerate(tenants):
        if number % 2:
            tenant.drop()
        else:
            tenant.purge()
        queue.expire()
        assert [other.counts() for other in tenants[number + 1 :]] == [(1, 1, 2)] * (
            len(tenants) - number - 1
        )


def test_a3_ids_are_worth_nothing_in_another_queue_or_project(queue):
    (posted,) = queue.post("secret")
    claim = queue.claim()
    (free,) = queue.post("also secret")
    intruders = [
        queue.other(),
        queue.other(project="another"),
        queue.other(queue.address.queue, project="another"),
        queue.other(queue.address.queue, project=""),
        queue.other(queue.address.project, project=queue.address.queue),
    ]
    for known in (False, True):
        for intruder in intruders:
            if known:
                intruder.fill(2)
                intruder.claim(1)
            intrude(intruder, posted, claim.id)
            intrude(intruder, free, claim.id)

    assert ids(queue.everything()) == [posted, free]
    assert ids(queue.read_claim(claim.id).messages) == [posted]
    assert queue.counts() == (1, 1, 2)
    assert [intruder.counts() for intruder in intruders] == [(1, 1, 2)] * 5


def test_a3_no_string_deletes_anything_but_the_message_it_names(queue):
    queue.fill(2)
    claim = queue.claim(1)
    project, name = queue.address.project, queue.address.queue
    strings = [
        project,
        name,
        claim.id,
        f"{project}.{name}",
        f"{project}.{name}.messages",
        f"{project}.{name}.claims",
        f"{project}.{name}.rank_counter",
        "queues_set",
        f"{project}.queues_set",
        "1",
        "*",
        "%",
    ]

    queue.delete_many(strings)
    queue.other().delete_many(strings)
    for string in strings:
        queue.delete(string)

    assert queue.counts() == (1, 1, 2)
    assert bodies(queue.read_claim(claim.id).messages) == ["1"]


def test_a_dead_letter_queue_of_one_project_is_not_that_of_another(queue):
    queue.post("a")
    queue.release(queue.claim().id)
    mine, theirs = queue.other("queue>dead"), queue.other("queue>dead", project="another")
    theirs.post("theirs")

    queue.try_claim(dead_letter=DeadLetter(address=mine.address, max_claims=1))

    assert bodies(mine.everything()) == ["a"]
    assert bodies(theirs.everything()) == ["theirs"]


@settings(
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(one=names, other=names)
def test_a4_no_two_names_share_anything(queue, one, other):
    mine = queue.other(one[1], project=one[0])
    theirs = queue.other(other[1], project=other[0])
    assume(one != other)
    mine.drop()
    theirs.drop()
    mine.post("mine", "mine too")
    claim = mine.claim(1)
    theirs.post("theirs")

    assert bodies(mine.everything()) == ["mine", "mine too"]
    assert bodies(theirs.everything()) == ["theirs"]
    for message in mine.everything():
        intrude(theirs, message.id, claim.id)
    assert (mine.counts(), theirs.counts()) == ((1, 1, 2), (1, 0, 1))
    assert bodies(theirs.pop(10)) == ["theirs"]
    theirs.drop()
    assert mine.counts() == (1, 1, 2)
    mine.drop()
    assert (mine.everything(), theirs.everything()) == ([], [])
