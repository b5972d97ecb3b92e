"""Getting messages by id, and listing them page by page."""

import pytest

from queues.models import NewMessage
from tests.storage.probe import bodies, ids

FAR = "7fffffffffffffff"  # the last place that a queue can have


def test_get_returns_what_exists_in_queue_order(queue):
    first, second, third = queue.post("a", "b", "c")

    assert ids(queue.get(third, "nonsense", first)) == [first, third]
    assert ids(queue.get(second, second)) == [second]
    assert queue.get() == []


def test_get_shows_claimed_and_delayed_messages_too(queue):
    queue.post("claimed")
    claim = queue.claim()
    queue.post("delayed", delay=60)

    claimed, delayed = queue.get(*ids(queue.everything()))
    assert (claimed.claim_id, claimed.claim_count) == (claim.id, 1)
    assert (delayed.claim_id, delayed.claim_count) == (None, 0)


def test_get_after_delete_returns_nothing(queue):
    posted = queue.fill(2)
    queue.delete_many(posted)

    assert queue.get(*posted) == []


def test_times_are_plain_integers(queue):
    """A ticket takes them along, and what a database has for integers cannot be written down as JSON."""
    queue.post("a", "b", "c")
    (popped,) = queue.pop(1)

    for message in (popped, *queue.everything(), *queue.claim().messages):
        assert type(message.created) is int
        assert type(message.expires) is int


def test_a_queue_that_does_not_exist_is_empty(queue):
    assert queue.get("0" * 32) == []
    assert queue.page() == []
    assert queue.page("0" * 32) == []


def test_fifteen_messages_are_a_page_of_ten_and_one_of_five(queue):
    posted = queue.fill(15)

    first = queue.page()
    second = queue.page(first[-1].id)
    third = queue.page(second[-1].id)

    assert (len(first), len(second), len(third)) == (10, 5, 0)
    assert ids([*first, *second]) == list(posted)


def test_c11_every_id_is_a_marker(queue):
    posted = queue.fill(4)

    for place, marker in enumerate(posted, 1):
        assert ids(queue.page(marker)) == list(posted[place:])


def test_b5_the_first_message_is_a_marker_like_any_other(queue):
    posted = queue.fill(3)
    seen: list[str] = []

    while page := queue.page(seen[-1] if seen else None, limit=1):
        seen += ids(page)
        assert len(seen) <= 3

    assert seen == list(posted)


def test_b5_the_marker_of_a_message_that_is_gone_continues_where_it_was(queue):
    posted = queue.fill(6)
    queue.delete(posted[1])
    queue.post("short", ttl=60)
    claim = queue.claim(1)
    queue.delete(posted[0], claim.id)
    popped = queue.pop()

    assert ids(popped) == [posted[2]]
    for marker in posted[:3]:
        assert ids(queue.page(marker, limit=2)) == [posted[3], posted[4]]


def test_b5_the_marker_of_an_expired_message_continues_where_it_was(queue):
    (short,) = queue.post("short", ttl=60)
    (long,) = queue.post("long", ttl=120)
    queue.clock.advance(60)

    assert ids(queue.page(short)) == [long]
    queue.expire()
    assert ids(queue.page(short)) == [long]
    assert queue.page(long) == []


def test_places_are_never_given_twice_whatever_becomes_of_the_messages(queue):
    given = [*queue.fill(3)]
    queue.pop(3)
    given += queue.post("b")
    queue.delete(given[-1])
    queue.expire()
    given += queue.post("c", ttl=60)
    queue.clock.advance(60)
    queue.expire()
    given += queue.post("d")
    queue.purge()
    queue.expire()
    given += queue.post("e")

    assert given == sorted(set(given))
    assert bodies(queue.page(given[-2])) == ["e"]


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "nonsense",
        "0",
        "-1",
        "0" * 32,
        "f" * 32,
        "..",
        "a/b",
        "' OR 1=1 --",
        "\N{SNOWMAN}" * 32,
        "0" * 3000,
    ],
)
def test_a_malformed_marker_selects_nothing(queue, marker):
    queue.fill(3)

    assert queue.page(marker, include_claimed=True, include_delayed=True) == []


def test_an_id_in_another_spelling_is_no_id(queue):
    (posted,) = queue.post("a")
    queue.post("b")
    spellings = {
        posted.upper() + " ",
        " " + posted,
        posted + "\n",
        posted[1:],
        "0" + posted,
        "+" + posted[1:],
    }

    for spelling in spellings:
        assert queue.get(spelling) == []
        assert queue.page(spelling) == []


def test_a_marker_beyond_the_end_selects_nothing_yet(queue):
    (posted,) = queue.post("a")

    assert queue.page(FAR + posted[16:]) == []
    assert queue.get(FAR + posted[16:]) == []


def test_a_marker_of_another_queue_selects_nothing(queue):
    queue.fill(3)
    foreign = queue.other().fill(3)

    assert queue.page(foreign[0], include_claimed=True, include_delayed=True) == []


def test_a_producer_can_hide_its_own_messages(queue):
    queue.fill(15, client_id="producer")

    assert queue.page(hide_client="producer") == []
    assert len(queue.page(hide_client="consumer", limit=20)) == 15
    assert len(queue.page(limit=20)) == 15


def test_a_producer_sees_what_others_posted_before_and_after_it(queue):
    queue.post("a", client_id="one")
    queue.post("b", client_id="two")
    queue.post("c", client_id="two")
    queue.post("d", client_id="one")
    queue.post("e", client_id="two")

    assert bodies(queue.page(hide_client="one")) == ["b", "c", "e"]
    assert bodies(queue.page(hide_client="two")) == ["a", "d"]
    assert bodies(queue.page(hide_client="")) == ["a", "b", "c", "d", "e"]
    queue.pop(1)
    assert bodies(queue.page(hide_client="two")) == ["d"]
    queue.delete(queue.everything()[2].id)
    assert bodies(queue.page(hide_client="two")) == []
    queue.post("f", client_id="one")
    assert bodies(queue.page(hide_client="two")) == ["f"]


def test_one_batch_can_have_several_producers(queue):
    batch = [NewMessage(body=b"1", ttl=60, client_id="one"), NewMessage(body=b"2", ttl=60, client_id="two")]
    queue.store.post(queue.address, batch, now=queue.clock.now, create=True)

    assert bodies(queue.page(hide_client="one")) == ["2"]
    assert bodies(queue.page(hide_client="two")) == ["1"]


def test_b6_a_page_is_cut_after_it_is_filtered(queue):
    queue.fill(12, client_id="me")
    queue.fill(1, ttl=60)
    queue.post("claimed")
    queue.claim(14)
    queue.fill(12, client_id="me", delay=300)
    queue.fill(12, client_id="me")
    (wanted,) = queue.post("wanted", client_id="you")
    queue.clock.advance(60)

    assert ids(queue.page(limit=2, hide_client="me")) == [wanted]
    assert len(queue.page(limit=10)) == 10
    assert ids(queue.page(limit=3, hide_client="me", include_claimed=True))[-1] == wanted


def test_claimed_messages_are_listed_only_if_asked_for(queue):
    posted = queue.fill(3)
    claim = queue.claim(2)

    assert ids(queue.page()) == [posted[2]]
    found = queue.page(include_claimed=True)
    assert ids(found) == list(posted)
    assert [message.claim_id for message in found] == [claim.id, claim.id, None]


def test_b7_claimed_messages_can_be_listed_without_a_marker(queue):
    posted = queue.fill(2)
    queue.claim(1)
    assert ids(queue.page(include_claimed=True)) == list(posted)
    queue.claim(1)
    assert ids(queue.page(include_claimed=True)) == list(posted)
    assert queue.other().page(include_claimed=True) == []


def test_the_listing_before_and_after_a_claim_is_the_same(queue):
    queue.fill(12)
    before = queue.page(include_claimed=True)
    queue.claim(5)

    assert ids(queue.page(include_claimed=True)) == ids(before)


def test_claimed_ready_and_delayed_messages_are_listed_in_one_order(queue):
    expected = []
    for _ in range(4):
        expected += queue.post("a")
        expected += queue.post("b", delay=60)
    queue.claim(2)

    assert ids(queue.everything()) == expected
    seen: list[str] = []
    while page := queue.page(seen[-1] if seen else None, limit=3, include_claimed=True, include_delayed=True):
        seen += ids(page)
    assert seen == expected


def test_reading_consumes_nothing(queue):
    posted = queue.fill(3)
    for _ in range(2):
        queue.page()
        queue.get(*posted)

    assert bodies(queue.claim().messages) == ["1", "2", "3"]
