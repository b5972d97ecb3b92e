"""Posting again without harm: the Idempotency-Key header."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.transport.conftest import ONE_STORE, Answer, Client, assert_problem, ids_of

MESSAGES = "/v2/queues/q1/messages"


def post(api: Client, *bodies: object, key: str | None = "k", queue: str = "q1", **members: int) -> Answer:
    document = {"messages": [{"body": body, **members} for body in bodies]}
    return api.post(f"/v2/queues/{queue}/messages", document, headers={"Idempotency-Key": key})


def test_a_post_that_is_repeated_stores_once_and_answers_the_same(api):
    first = post(api, "a", "b")
    again = [post(api, "a", "b") for _ in range(3)]

    assert first.status_code == 201
    assert [each.status_code for each in again] == [201] * 3
    assert [each.json for each in again] == [first.json] * 3
    assert [each.headers["location"] for each in again] == [first.headers["location"]] * 3
    assert api.listed() == ["a", "b"]


@pytest.mark.parametrize(
    ("bodies", "members"),
    [(["b"], {}), (["a", "a"], {}), ([["a"]], {}), (["a"], {"ttl": 60}), (["a"], {"delay": 5})],
)
def test_the_same_key_with_another_post_conflicts(api, bodies, members):
    post(api, "a")

    assert_problem(post(api, *bodies, **members), 409, "Resource conflict")
    assert api.listed() == ["a"]
    assert post(api, "a").status_code == 201


def test_other_keys_are_other_posts(api):
    answers = [post(api, "a", key=key) for key in ("k", "K", "k2", None, None)]

    assert len({ids_of(answer)[0] for answer in answers}) == 5
    assert api.stats() == (5, 0)


def test_a_key_belongs_to_a_queue_of_a_project(api):
    answers = [post(api, "a"), post(api, "a", queue="q2"), post(api.of("red"), "a")]

    assert [answer.status_code for answer in answers] == [201] * 3
    assert (api.stats("q1"), api.stats("q2"), api.of("red").stats("q1")) == ((1, 0),) * 3


def test_who_repeats_does_not_matter(api):
    first = post(api, "a")

    assert post(api.another(), "a").json == first.json


@pytest.mark.parametrize("fate", ["claimed", "deleted", "expired", "purged"])
def test_a_repeat_answers_the_same_whatever_became_of_the_messages(api, clock, fate):
    first = post(api, "a", ttl=60)
    if fate == "claimed":
        api.claim()
    elif fate == "deleted":
        api.delete(first.json["resources"][0])
    elif fate == "expired":
        clock.advance(60)
    else:
        api.post("/v2/queues/q1/purge")

    again = post(api, "a", ttl=60)

    assert (again.status_code, again.json) == (201, first.json)
    assert api.stats() == ((0, 1) if fate == "claimed" else (0, 0))


def test_a_key_is_remembered_for_ten_minutes(api, clock):
    first = post(api, "a")
    clock.advance(599.9)
    assert post(api, "a").json == first.json

    clock.advance(0.1)

    assert post(api, "a").json != first.json
    assert api.stats() == (2, 0)


def test_a_key_can_be_used_for_another_post_when_it_is_forgotten(api, clock):
    post(api, "a")
    clock.advance(600)

    assert post(api, "b").status_code == 201
    assert_problem(post(api, "a"), 409, "Resource conflict")


def test_how_long_a_key_is_remembered_can_be_set(open_api, clock):
    api = open_api(idempotency={"window": 5})
    post(api, "a")

    clock.advance(4.9)
    post(api, "a")
    clock.advance(0.1)
    post(api, "a")

    assert api.stats() == (2, 0)


def test_other_processes_recognise_a_repeat(open_api):
    one, other = open_api(), open_api()

    assert post(one, "a").json == post(other, "a").json
    assert_problem(post(other, "b"), 409, "Resource conflict")


def test_a_post_that_was_refused_is_not_remembered(api):
    assert post(api, "a", ttl=0).status_code == 400

    assert post(api, "a").status_code == 201
    assert api.listed() == ["a"]


def test_a_post_that_failed_is_not_remembered(api, driver):
    api.create_queue("q1")
    driver.break_()
    assert post(api, "a").status_code == 503
    driver.mend()

    assert post(api, "a").status_code == 201
    assert api.listed() == ["a"]


def test_repeats_that_come_at_once_store_once(api):
    api.create_queue("q1")
    gate = threading.Barrier(8, timeout=10)

    def repeat(_: int) -> Answer:
        gate.wait()
        return post(api, "a", "b")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(repeat, range(8)))

    assert {answer.text for answer in answers} == {answers[0].text}
    assert api.listed() == ["a", "b"]


@pytest.mark.parametrize("key", ["k", "x" * 255, "!~", '{"a":1}', "hmd/=+;,"])
def test_a_key_is_any_visible_ascii_text(api, key):
    first = post(api, "a", key=key)

    assert first.status_code == 201
    assert post(api, "a", key=key).json == first.json


@ONE_STORE
@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "\u00e9", "a\tb", "\x7f"])
def test_a_malformed_key_is_refused(api, key):
    assert_problem(post(api, "a", key=key), 400, "Invalid API request")
    assert api.queue_names() == []


@ONE_STORE
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v2/queues/q1"), ("POST", "/v2/queues/q1/claims"), ("GET", "/v2/queues")]
)
def test_the_key_matters_to_posts_of_messages_only(api, method, path):
    for key in ("k", "k", "not a key"):
        assert api.request(method, path, headers={"Idempotency-Key": key}).status_code < 300
