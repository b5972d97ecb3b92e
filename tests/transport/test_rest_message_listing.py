"""Listing messages: order, filters, pages and markers. Sections 4.3, 4.4 and 12.3; checklist 12 and 17."""

from urllib.parse import parse_qs, urlsplit

import pytest

from tests.transport.conftest import Answer, assert_problem, bodies_of, next_link, pages

MESSAGES = "/v2/queues/q1/messages"


@pytest.fixture
def reader(api):
    """A client that is none of those who post."""
    return api.another()


def link_query(answer: Answer) -> dict[str, list[str]]:
    return parse_qs(urlsplit(next_link(answer)).query)


# --- what is listed


@pytest.mark.parametrize("created", [True, False])
def test_an_empty_queue_and_a_missing_one_list_nothing(api, created):
    if created:
        api.create_queue("q1")

    answer = api.get(MESSAGES)

    assert (answer.status_code, answer.json) == (200, {"messages": [], "links": []})
    assert api.queue_names() == (["q1"] if created else [])


def test_the_oldest_message_comes_first(api, reader, clock):
    for number in range(8):
        api.post_bodies(number, ttl=60 + 10 * (number % 3))
        clock.advance(number % 2)

    assert bodies_of(reader.get(MESSAGES)) == list(range(8))


def test_ten_messages_are_listed_unless_asked_otherwise(api, reader):
    """Checklist 17."""
    api.post_bodies(*range(25))

    assert bodies_of(reader.get(MESSAGES)) == list(range(10))
    assert bodies_of(reader.get(f"{MESSAGES}?limit=20")) == list(range(20))
    assert bodies_of(reader.get(f"{MESSAGES}?limit=1")) == [0]


def test_a_smaller_greatest_page_is_heeded(open_api):
    api = open_api(limits={"max_messages_per_page": 5})

    assert api.get(f"{MESSAGES}?limit=5").status_code == 200
    assert_problem(api.get(f"{MESSAGES}?limit=6"), 400, "Invalid API request")
    assert_problem(api.get(f"{MESSAGES}?ids={','.join('abcdef')}"), 400, "Invalid API request")


def test_a_client_does_not_hear_itself_unless_it_wants_to(api, reader):
    api.post_bodies("mine")
    reader.post_bodies("theirs")

    assert bodies_of(api.get(MESSAGES)) == ["theirs"]
    assert bodies_of(api.get(f"{MESSAGES}?echo=false")) == ["theirs"]
    assert bodies_of(api.get(f"{MESSAGES}?echo=true")) == ["mine", "theirs"]
    assert bodies_of(reader.get(MESSAGES)) == ["mine"]


def test_claimed_messages_are_listed_only_when_asked_for(api, reader):
    ids = api.post_bodies("a", "b", "c")
    claim = api.claim(limit=2)

    shown = reader.get(f"{MESSAGES}?include_claimed=true").json["messages"]

    assert bodies_of(reader.get(MESSAGES)) == ["c"]
    assert [message["body"] for message in shown] == ["a", "b", "c"]
    assert [message["href"] for message in shown] == [
        f"{MESSAGES}/{ids[0]}?claim_id={claim.id}",
        f"{MESSAGES}/{ids[1]}?claim_id={claim.id}",
        f"{MESSAGES}/{ids[2]}",
    ]


@pytest.mark.parametrize("end", ["expiry", "release"])
def test_a_claim_that_has_ended_hides_nothing(api, reader, clock, end):
    ids = api.post_bodies("a", "b")
    claim = api.claim(limit=1, ttl=60)
    if end == "expiry":
        clock.advance(60)
    else:
        api.delete(claim.path)

    shown = reader.get(MESSAGES).json["messages"]

    assert [message["href"] for message in shown] == [f"{MESSAGES}/{id_}" for id_ in ids]


def test_expired_messages_are_not_listed(api, reader, clock):
    api.post_messages("q1", {"body": "short", "ttl": 60}, {"body": "long", "ttl": 61})
    clock.advance(60)

    assert bodies_of(reader.get(f"{MESSAGES}?include_claimed=true&include_delayed=true")) == ["long"]


def test_listing_changes_nothing(api, reader):
    api.post_bodies("a")

    assert [bodies_of(reader.get(MESSAGES)) for _ in range(3)] == [["a"]] * 3
    assert api.stats() == (1, 0)


def test_a_page_is_full_if_enough_messages_match(api, reader):
    """The filters apply before the limit."""
    api.post_bodies(*range(30))
    api.claim(limit=20)
    reader.post_bodies("own", "own")
    api.post_bodies("last")

    assert bodies_of(reader.get(f"{MESSAGES}?limit=10")) == list(range(20, 30))
    assert bodies_of(reader.get(f"{MESSAGES}?limit=11")) == [*range(20, 30), "last"]


# --- links


def test_the_links_lead_through_all_messages(api, reader):
    """Checklist 12."""
    api.post_bodies(*range(10))

    found = [bodies_of(page) for page in pages(reader, f"{MESSAGES}?limit=3")]

    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9], []]


def test_the_link_repeats_what_was_asked(api):
    [*_, last] = api.post_bodies("a", "b")

    answer = api.get(f"{MESSAGES}?limit=2&echo=True&include_claimed=1&include_delayed=t&unknown=x")
    query = link_query(answer)

    assert next_link(answer).startswith(f"{MESSAGES}?")
    assert query == {
        "marker": [last],
        "limit": ["2"],
        "echo": ["true"],
        "include_claimed": ["true"],
        "include_delayed": ["true"],
    }


def test_the_link_does_not_ask_for_more_than_was_asked(api, reader):
    api.post_bodies("a")

    query = link_query(reader.get(MESSAGES))

    assert set(query) <= {"marker", "include_delayed"}


def test_the_link_of_the_last_page_shows_what_is_posted_later(api, reader):
    api.post_bodies("a")
    link = next_link(reader.get(MESSAGES))
    assert bodies_of(reader.get(link)) == []

    api.post_bodies("b")

    assert bodies_of(reader.get(link)) == ["b"]


# --- markers


def test_a_message_id_is_a_marker(api, reader):
    """As openstacksdk pages: behind the last message it saw, until a page is empty."""
    api.post_bodies(*range(7))
    seen, query = [], "limit=3"

    while messages := reader.get(f"{MESSAGES}?{query}").json["messages"]:
        seen += [message["body"] for message in messages]
        query = f"limit={len(messages)}&marker={messages[-1]['id']}"

    assert seen == list(range(7))


@pytest.mark.parametrize("gone", ["deleted", "expired", "claimed", "purged"])
def test_a_marker_keeps_its_place_when_its_message_is_gone(api, reader, clock, gone):
    [marker] = api.post_bodies("a", ttl=60)
    if gone == "deleted":
        api.delete(f"{MESSAGES}/{marker}")
    elif gone == "expired":
        clock.advance(60)
    elif gone == "claimed":
        api.claim()
    else:
        api.post("/v2/queues/q1/purge")

    api.post_bodies("b", "c")

    assert bodies_of(reader.get(f"{MESSAGES}?marker={marker}")) == ["b", "c"]


@pytest.mark.parametrize(
    "marker",
    ["sfhlsfdjh2048", "1", "0", "-1", "g" * 32, "x" * 1000, "%00", "%F0%9F%92%A9", "..", "%25", "0" * 31],
)
def test_a_marker_that_is_none_shows_an_empty_page(api, reader, marker):
    """Checklist 12; neither an error nor the first page."""
    api.post_bodies("a", "b")

    answer = reader.get(f"{MESSAGES}?marker={marker}")

    assert (answer.status_code, answer.json) == (200, {"messages": [], "links": []})


def test_a_marker_of_another_queue_shows_an_empty_page(api, reader):
    api.post_bodies("a", "b")
    [foreign] = api.post_bodies("other", queue="q2")

    assert reader.get(f"{MESSAGES}?marker={foreign}").json == {"messages": [], "links": []}


def test_nothing_appears_behind_a_marker_that_was_handed_out(api, reader, clock):
    """Messages that return from a claim keep their place; new ones come last."""
    api.post_bodies("a", "b", "c")
    claim = api.claim(limit=2, ttl=60)
    link = next_link(reader.get(f"{MESSAGES}?limit=1"))
    api.delete(claim.path)
    api.post_bodies("d")
    clock.advance(1)

    assert bodies_of(reader.get(link)) == ["d"]
    assert bodies_of(reader.get(MESSAGES)) == ["a", "b", "c", "d"]
