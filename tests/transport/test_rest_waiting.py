"""Long polling: `wait` on claims and on listings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from queues.errors import StoreUnavailable
from tests.transport.conftest import ONE_STORE, STORES, Answer, Client, bodies_of

CLAIMS = ("POST", "/v2/queues/q1/claims")
MESSAGES = ("GET", "/v2/queues/q1/messages")
BOTH = pytest.mark.parametrize("where", [CLAIMS, MESSAGES], ids=["claim", "list"])

#: For what time brings: each store tells by itself when that is.
EVERY_STORE = pytest.mark.parametrize("stores", STORES, indirect=True)

PATIENCE = 15.0  # seconds until a test gives up


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


@contextmanager
def waiting(api: Client, *requests: str) -> Iterator[list[Future[Answer]]]:
    """Let requests wait, in threads; they do when the block begins."""
    room = api.service.waiting
    with ThreadPoolExecutor(len(requests)) as threads:
        futures = []
        for count, line in enumerate(requests, 1):
            method, path = line.split()
            futures.append(threads.submit(api.call, method, path))
            eventually(lambda count=count: standing(api) == count)  # type: ignore[misc]
        eventually(lambda: all(line.store for line in room._all))
        try:
            yield futures
        finally:
            room.close()


def standing(api: Client) -> int:
    """Return how many requests wait."""
    return sum(len(line.members) for line in list(api.service.waiting._all))


def answered(future: Future[Answer]) -> Answer:
    return future.result(PATIENCE)


@BOTH
def test_what_is_there_is_answered_at_once(api, where):
    api.post_bodies("a")
    method, path = where
    answer = api.another().call(method, f"{path}?wait=20")
    assert bodies_of(answer) == ["a"]


@BOTH
def test_what_comes_ends_the_wait(api, where):
    method, path = where
    with waiting(api.another(), f"{method} {path}?wait=20") as [request]:
        api.post_bodies("a")
        assert bodies_of(answered(request)) == ["a"]


@BOTH
def test_a_lease_that_is_given_back_ends_the_wait(api, where):
    api.post_bodies("a")
    claim = api.claim()
    method, path = where
    with waiting(api.another(), f"{method} {path}?wait=20") as [request]:
        assert api.delete(claim.path).status_code == 204
        assert bodies_of(answered(request)) == ["a"]


@ONE_STORE
@BOTH
def test_when_nothing_comes_the_answer_is_the_usual_one(api, where):
    method, path = where
    without = api.call(method, path)
    start = time.monotonic()
    answer = api.call(method, f"{path}?wait=1")
    assert time.monotonic() - start > 0.99
    assert (answer.status_code, answer.content) == (without.status_code, without.content)


@ONE_STORE
@BOTH
@pytest.mark.parametrize("wait", ["-1", "21", "1.5", "x"])
def test_a_time_that_is_none_is_refused(api, where, wait):
    method, path = where
    answer = api.call(method, f"{path}?wait={wait}")
    assert answer.status_code == 400, answer.text


@ONE_STORE
@BOTH
def test_a_wait_of_nothing_is_none(api, where):
    method, path = where
    start = time.monotonic()
    answer = api.call(method, f"{path}?wait=0")
    assert answer.status_code == (204 if method == "POST" else 200)
    assert time.monotonic() - start < 10


@EVERY_STORE
def test_a_delay_that_ends_ends_the_wait(api, clock):
    api.post_bodies("a", delay=1)
    with waiting(api, "POST /v2/queues/q1/claims?wait=20") as [request]:
        clock.advance(1)  # the wait is for a second of real time
        assert bodies_of(answered(request)) == ["a"]


@EVERY_STORE
def test_a_lease_that_ends_ends_the_wait(api, clock):
    api.post_bodies("a")
    api.claim(ttl=60)
    clock.advance(59)
    with waiting(api, "POST /v2/queues/q1/claims?wait=20") as [request]:
        clock.advance(1)
        assert bodies_of(answered(request)) == ["a"]


@ONE_STORE
def test_messages_go_to_claims_in_the_order_in_which_they_came(api):
    with waiting(api, *(["POST /v2/queues/q1/claims?wait=20&limit=1"] * 4)) as requests:
        api.post_bodies(1, 2)
        assert [bodies_of(answered(request)) for request in requests[:2]] == [[1], [2]]
        assert not any(request.done() for request in requests[2:])
        api.post_bodies(3)
        assert bodies_of(answered(requests[2])) == [3]


@ONE_STORE
def test_every_listing_that_waits_shows_the_message(api):
    other = api.another()
    with waiting(other, *(["GET /v2/queues/q1/messages?wait=20"] * 3)) as requests:
        api.post_bodies(1)
        assert [bodies_of(answered(request)) for request in requests] == [[1], [1], [1]]


@ONE_STORE
def test_a_listing_waits_for_what_it_would_show(api):
    """Its client's own messages are none of it, nor is what is before its marker."""
    other = api.another()
    (first,) = api.post_bodies("first")
    with waiting(other, f"GET /v2/queues/q1/messages?wait=20&marker={first}") as [request]:
        assert other.post("/v2/queues/q1/messages", {"messages": [{"body": "own"}]}).status_code == 201
        api.claim()
        time.sleep(0.05)
        assert not request.done()
        api.post_bodies("second")
        assert bodies_of(answered(request)) == ["second"]


@ONE_STORE
@BOTH
def test_a_store_that_fails_meanwhile_is_told(api, driver, where):
    method, path = where
    with waiting(api.another(), f"{method} {path}?wait=20") as [request]:
        driver.break_("claim", "list")
        driver._driver.messages._state.wakeups.wake_all()
        assert answered(request).status_code == 503
    driver.mend()


@ONE_STORE
def test_a_store_that_fails_when_the_watch_begins_is_told(api, driver):
    driver.break_("outlook", error=StoreUnavailable())
    answer = api.call("POST", "/v2/queues/q1/claims?wait=20")
    assert answer.status_code == 503
    assert standing(api) == 0


@ONE_STORE
def test_beyond_the_budget_a_request_is_answered_as_if_it_did_not_wait(open_api):
    api = open_api(api={"waiters": 2})
    with waiting(api, *(["POST /v2/queues/q1/claims?wait=20"] * 2)) as requests:
        start = time.monotonic()
        assert api.call("POST", "/v2/queues/q1/claims?wait=20").status_code == 204
        assert api.call("GET", "/v2/queues/q1/messages?wait=20").json["messages"] == []
        assert time.monotonic() - start < 10
        assert not any(request.done() for request in requests)


@ONE_STORE
def test_nobody_waits_where_nobody_may(open_api):
    api = open_api(api={"waiters": 0})
    start = time.monotonic()
    assert api.call("POST", "/v2/queues/q1/claims?wait=20").status_code == 204
    assert time.monotonic() - start < 10


@ONE_STORE
def test_a_wait_is_for_the_messages_of_its_own_project(api):
    green = api.of("green")
    with waiting(green, "POST /v2/queues/q1/claims?wait=20") as [request]:
        api.post_bodies("blue")
        green.post_bodies("green")
        assert bodies_of(answered(request)) == ["green"]


@ONE_STORE
def test_waiting_makes_no_queue(api):
    api.call("POST", "/v2/queues/q1/claims?wait=1")
    assert api.queue_names() == []


@ONE_STORE
@pytest.mark.parametrize("what", ["?ids=1&wait=20", "/1?wait=20"])
def test_what_is_asked_for_by_id_is_not_waited_for(api, what):
    start = time.monotonic()
    answer: Any = api.get(f"/v2/queues/q1/messages{what}")
    assert answer.status_code in (400, 404)
    assert time.monotonic() - start < 10
