"""Messages that were claimed too often, and messages that are not due yet. Sections 12.9 and 13.6."""

from typing import Any

import pytest

from tests.transport.conftest import ONE_STORE, Client, Clock, assert_problem, bodies_of

CLAIMS = "/v2/queues/q1/claims"
MESSAGES = "/v2/queues/q1/messages"
DEAD_LETTERS = {"_max_claim_count": 2, "_dead_letter_queue": "dead", "_dead_letter_queue_messages_ttl": 9999}


def claim_and_lose(api: Client, clock: Clock, queue: str = "q1") -> list[Any]:
    """Claim messages, let the claim expire, and return their bodies."""
    answer = api.post(f"/v2/queues/{queue}/claims", {"ttl": 60, "grace": 60})
    clock.advance(60)
    return bodies_of(answer) if answer.status_code == 201 else []


def dead(api: Client) -> list[dict[str, Any]]:
    return list(api.get("/v2/queues/dead/messages?echo=true&include_claimed=true").json["messages"])


# --- dead letters, section 13.6


def test_a_message_that_was_claimed_too_often_moves_to_the_dead_letter_queue(api, clock):
    api.create_queue("dead")
    api.create_queue("q1", DEAD_LETTERS)
    [id_] = api.post_bodies({"any": "json"})

    assert [claim_and_lose(api, clock) for _ in range(3)] == [[{"any": "json"}], [{"any": "json"}], []]

    [moved] = dead(api)
    assert (moved["body"], moved["ttl"], moved["age"]) == ({"any": "json"}, 9999, 60)
    assert moved["href"] == f"/v2/queues/dead/messages/{moved['id']}"
    assert api.get(f"{MESSAGES}/{id_}").status_code == 404
    assert (api.stats("q1"), api.stats("dead")) == ((0, 0), (1, 0))


def test_the_messages_behind_one_that_moves_are_claimed(api, clock):
    api.create_queue("q1", DEAD_LETTERS)
    api.post_bodies("poison")
    claim_and_lose(api, clock)
    claim_and_lose(api, clock)
    api.post_bodies("a", "b")

    claim = api.claim(limit=2)

    assert [message["body"] for message in claim.messages] == ["a", "b"]
    assert [message["body"] for message in dead(api)] == ["poison"]


def test_a_released_claim_counts_too(api):
    api.create_queue("q1", DEAD_LETTERS)
    api.post_bodies("a")
    for _ in range(2):
        api.delete(api.claim().path)

    assert api.post(CLAIMS).status_code == 204
    assert [message["body"] for message in dead(api)] == ["a"]


def test_the_dead_letter_queue_is_made_if_it_is_missing(api, clock):
    api.create_queue("q1", DEAD_LETTERS)
    api.post_bodies("a")
    for _ in range(3):
        claim_and_lose(api, clock)

    assert api.queue_names() == ["dead", "q1"]
    assert api.metadata("dead") == {}


def test_a_dead_letter_is_a_new_message_there(api, clock):
    """Unclaimed, not counted, behind those that were there, and it can be claimed at once."""
    api.create_queue("dead", {"_max_claim_count": 2, "_dead_letter_queue": "grave"})
    api.create_queue("q1", DEAD_LETTERS)
    api.post_bodies("first")
    for _ in range(2):
        claim_and_lose(api, clock)
    api.post_bodies("earlier", queue="dead")
    assert api.post(CLAIMS).status_code == 204

    assert claim_and_lose(api, clock, "dead") == ["earlier", "first"]
    assert claim_and_lose(api, clock, "dead") == ["earlier", "first"]
    popped = api.delete("/v2/queues/dead/messages?pop=2").json["messages"]
    assert [message["body"] for message in popped] == ["earlier", "first"]


def test_without_a_ttl_of_its_own_a_dead_letter_expires_when_the_message_would_have(api, clock):
    api.create_queue("q1", {**DEAD_LETTERS, "_dead_letter_queue_messages_ttl": None})
    api.post_bodies("a", ttl=500)
    for _ in range(3):
        claim_and_lose(api, clock)

    clock.advance(500 - 180 - 0.1)
    assert [message["body"] for message in dead(api)] == ["a"]
    clock.advance(0.1)
    assert dead(api) == []


def test_a_ttl_of_its_own_counts_from_the_move(api, clock):
    api.create_queue("q1", {**DEAD_LETTERS, "_dead_letter_queue_messages_ttl": 60})
    api.post_bodies("a", ttl=500)
    for _ in range(2):
        claim_and_lose(api, clock)
    assert api.post(CLAIMS).status_code == 204

    clock.advance(59.9)
    assert [message["body"] for message in dead(api)] == ["a"]
    clock.advance(0.1)
    assert dead(api) == []


@pytest.mark.parametrize("missing", ["_max_claim_count", "_dead_letter_queue"])
def test_both_attributes_are_needed(api, clock, missing):
    api.create_queue("q1", {**DEAD_LETTERS, missing: None})
    api.post_bodies("a")

    assert [claim_and_lose(api, clock) for _ in range(4)] == [["a"]] * 4
    assert dead(api) == []


def test_the_dead_letter_queue_is_one_of_the_same_project(api, clock):
    red = api.of("red")
    red.create_queue("dead")
    api.create_queue("q1", DEAD_LETTERS)
    api.post_bodies("a")
    for _ in range(3):
        claim_and_lose(api, clock)

    assert (dead(red), len(dead(api))) == ([], 1)


def test_dead_letters_keep_their_order(api, clock):
    api.create_queue("q1", {**DEAD_LETTERS, "_max_claim_count": 1})
    api.post_bodies(*range(5))
    claim_and_lose(api, clock)

    assert claim_and_lose(api, clock) == []
    assert [message["body"] for message in dead(api)] == list(range(5))


# --- delay, section 12.9


def claimable(api: Client) -> bool:
    """Tell whether a claim gets a message, and give it back."""
    answer = api.post(CLAIMS)
    if answer.status_code == 201:
        api.delete(answer.headers["location"])
    return answer.status_code == 201


@pytest.mark.parametrize("of", ["message", "queue", "settings"])
def test_f6_a_delayed_message_cannot_be_had_until_it_is_due(open_api, clock, of):
    """Whoever asks for the delay: the message, on any queue; its queue; the settings."""
    api = open_api(limits={"default_message_delay": 20 if of == "settings" else 0})
    api.create_queue("q1", {"_default_message_delay": 20} if of == "queue" else {})
    api.post_bodies("a", **({"delay": 20} if of == "message" else {}))

    clock.advance(19.9)
    assert not claimable(api)
    assert bodies_of(api.delete(f"{MESSAGES}?pop=1")) == []
    clock.advance(0.1)
    assert claimable(api)
    assert bodies_of(api.delete(f"{MESSAGES}?pop=1")) == ["a"]


def test_the_delay_of_a_message_comes_before_that_of_its_queue(api, clock):
    api.create_queue("q1", {"_default_message_delay": 20})
    api.post_messages(
        "q1", {"body": "at once", "delay": 0}, {"body": "later", "delay": 900}, {"body": "soon"}
    )

    assert bodies_of(api.post(CLAIMS)) == ["at once"]
    clock.advance(20)
    assert bodies_of(api.post(CLAIMS)) == ["soon"]
    clock.advance(880)
    assert "later" in bodies_of(api.post(CLAIMS))


def test_f6_a_delayed_message_is_listed_where_the_queue_has_no_delay(api):
    api.post_messages("q1", {"body": "a", "delay": 20}, {"body": "b"})

    assert api.listed() == ["a", "b"]
    assert api.listed(query="echo=true&include_delayed=false") == ["a", "b"]


def test_a_delayed_message_is_listed_on_request_where_the_queue_has_a_delay(api, clock):
    api.create_queue("q1", {"_default_message_delay": 20})
    api.post_messages("q1", {"body": "a"}, {"body": "b", "delay": 0})

    assert api.listed() == ["b"]
    assert api.listed(query="echo=true&include_delayed=true") == ["a", "b"]
    clock.advance(20)
    assert api.listed() == ["a", "b"]


def test_a_delayed_message_can_be_read_and_deleted_by_its_id(api):
    api.create_queue("q1", {"_default_message_delay": 20})
    one, two, three = api.post_bodies("a", "b", "c")

    assert api.get(f"{MESSAGES}/{one}").json["body"] == "a"
    assert bodies_of(api.get(f"{MESSAGES}?ids={two},{one}")) == ["a", "b"]
    assert api.delete(f"{MESSAGES}/{one}").status_code == 204
    assert api.delete(f"{MESSAGES}?ids={two}").status_code == 204
    assert bodies_of(api.get(f"{MESSAGES}?include_delayed=true&echo=true")) == ["c"]
    assert api.get(f"{MESSAGES}/{three}").status_code == 200


def test_a_delayed_message_counts_as_free(api):
    api.post_bodies("a", delay=20)

    assert api.stats() == (1, 0)


def test_a_delayed_message_lives_from_its_posting(api, clock):
    [id_] = api.post_bodies("a", ttl=60, delay=60)
    clock.advance(60)

    assert api.get(f"{MESSAGES}/{id_}").status_code == 404
    assert not claimable(api)


def test_a_due_message_has_the_place_it_was_posted_at(api, clock):
    api.post_messages("q1", {"body": "a", "delay": 20}, {"body": "b"})
    clock.advance(20)

    assert bodies_of(api.post(CLAIMS)) == ["a", "b"]


@ONE_STORE
@pytest.mark.parametrize("metadata", [{}, {"_default_message_delay": 20}])
@pytest.mark.parametrize("delay", ["5", "", None, 1.0, 1.5, [], True])
def test_f6_a_delay_of_another_type_is_refused_on_any_queue(api, metadata, delay):
    api.create_queue("q1", metadata)

    answer = api.post(MESSAGES, {"messages": [{"body": 1, "delay": delay}]})

    assert_problem(answer, 400, "Invalid request body")


@ONE_STORE
@pytest.mark.parametrize("metadata", [{}, {"_default_message_delay": 20}])
@pytest.mark.parametrize(("delay", "status"), [(-1, 400), (0, 201), (900, 201), (901, 400)])
def test_f6_a_delay_has_bounds_on_any_queue(api, metadata, delay, status):
    api.create_queue("q1", metadata)

    answer = api.post(MESSAGES, {"messages": [{"body": 1, "delay": delay}]})

    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400, "Invalid API request")


def test_the_greatest_delay_can_be_set(open_api):
    api = open_api(limits={"max_message_delay": 10})

    assert api.post(MESSAGES, {"messages": [{"body": 1, "delay": 10}]}).status_code == 201
    assert api.post(MESSAGES, {"messages": [{"body": 1, "delay": 11}]}).status_code == 400
