"""Many clients at once on several workers: nothing lost, nothing claimed twice, no gap behind a marker."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import Client, Hermod, Reply, together

PRODUCERS = 3
CONSUMERS = 3
POSTS = 60  # of each producer
BATCH = 4


@pytest.fixture
def apis(hermod: MakeHermod, shared_store: str) -> list[Hermod]:
    """Two services on one store, each a process of its own on a port of its own."""
    return [hermod("api", "--workers", "1", "--threads", "8", store=shared_store).start() for _ in range(2)]


class Traffic:
    """Producers write a queue that is worked off and one that is only read; everybody checks what it sees."""

    def __init__(self, services: Sequence[Hermod], posts: int = POSTS) -> None:
        self._services = services
        self._posts = posts
        self.all = {
            f"{p}/{post}/{n}" for p in range(PRODUCERS) for post in range(posts) for n in range(BATCH)
        }
        self._lock = threading.Lock()
        self._leased: dict[str, str] = {}  # message -> the live claim that holds it
        self.done = Counter[str]()  # bodies that were deleted or popped
        self.read: list[str] = []  # bodies in the order in which the reader saw them

    def run(self, index: int) -> None:
        ways = [self.produce] * PRODUCERS + [self.consume] * CONSUMERS + [self.pop, self.follow]
        with self._services[index % len(self._services)].client() as client:
            ways[index](client, index)

    def produce(self, client: Client, producer: int) -> None:
        for post in range(self._posts):
            bodies = [f"{producer}/{post}/{n}" for n in range(BATCH)]
            for queue in ("work", "log"):
                answer = client.post(queue, bodies)
                assert answer.status == 201, answer

    def consume(self, client: Client, consumer: int) -> None:
        turn = consumer
        while not self.is_over():
            claim = client.request("POST", "/v2/queues/work/claims?limit=5", {"ttl": 600, "grace": 60})
            assert claim.status in (201, 204), claim
            if claim.status == 201:
                self.lease(claim)
                turn += 1
                self.work(client, claim, turn)

    def work(self, client: Client, claim: Reply, turn: int) -> None:
        """Do one of the things that a worker can do with a claim."""
        messages, location = claim.messages(), claim.headers["location"]
        if turn % 4 == 0:
            self.end_lease(messages)
            assert client.request("DELETE", location).status == 204
            return
        if turn % 4 == 1:
            assert client.request("PATCH", location, {"ttl": 900, "grace": 60}).status == 204
            held = client.request("GET", location).messages()
            assert [message["id"] for message in held] == [message["id"] for message in messages]
        for message in messages:
            assert client.request("DELETE", message["href"]).status == 204
        assert client.request("GET", location).messages() == []
        self.finish(messages)

    def pop(self, client: Client, _index: int) -> None:
        while not self.is_over():
            answer = client.request("DELETE", "/v2/queues/work/messages?pop=1")
            assert answer.status == 200, answer
            with self._lock:
                assert not any(message["id"] in self._leased for message in answer.messages())
            self.finish(answer.messages())

    def follow(self, client: Client, _index: int) -> None:
        path = "/v2/queues/log/messages?limit=7&echo=true"
        while len(self.read) < len(self.all):
            page = client.request("GET", path)
            assert page.status == 200, page
            self.read += [message["body"] for message in page.messages()]
            if page.messages():
                path = page.document()["links"][0]["href"]

    def is_over(self) -> bool:
        with self._lock:
            return self.done.total() >= len(self.all)

    def lease(self, claim: Reply) -> None:
        with self._lock:
            for message in claim.messages():
                assert message["id"] not in self._leased, "two live claims on one message"
                assert not self.done[message["body"]], "a deleted message was claimed"
                self._leased[message["id"]] = claim.headers["location"]

    def end_lease(self, messages: list[dict[str, Any]]) -> None:
        with self._lock:
            for message in messages:
                self._leased.pop(message["id"], None)

    def finish(self, messages: list[dict[str, Any]]) -> None:
        self.end_lease(messages)
        with self._lock:
            self.done.update(message["body"] for message in messages)

    def judge(self) -> None:
        """Check that each message was worked off once, and read once and in order."""
        assert self.done == Counter(self.all)
        assert Counter(self.read) == Counter(self.all)
        for producer in range(PRODUCERS):
            own = [body for body in self.read if body.startswith(f"{producer}/")]
            assert own == [f"{producer}/{post}/{n}" for post in range(self._posts) for n in range(BATCH)]
        for service in self._services:
            with service.client() as client:
                assert client.everything("work") == []
                for queue, count in (("work", 0), ("log", len(self.all))):
                    stats = client.request("GET", f"/v2/queues/{queue}/stats").document()["messages"]
                    assert (stats["free"], stats["claimed"], stats["total"]) == (count, 0, count)
                assert [message["body"] for message in client.everything("log")] == self.read


def test_p2_p3_p6_everybody_at_once(hermod: MakeHermod) -> None:
    service = hermod("serve", "--workers", "2", "--threads", "8").start()
    traffic = Traffic([service])
    together(PRODUCERS + CONSUMERS + 2, traffic.run)
    traffic.judge()


def test_p2_p3_p6_everybody_at_once_through_several_services(apis: list[Hermod]) -> None:
    traffic = Traffic(apis, posts=POSTS // 3)
    together(PRODUCERS + CONSUMERS + 2, traffic.run)
    traffic.judge()


def test_p10_many_repeat_one_post_at_once(apis: list[Hermod]) -> None:
    answers: list[tuple[str, Reply]] = []

    def post(index: int) -> None:
        with apis[index % 2].client() as client:
            for number in range(20):
                key = f"key-{number}"
                answers.append((key, client.post("q", [number, "second"], key=key)))

    together(8, post)
    places: dict[str, set[str]] = {}
    for key, answer in answers:
        assert answer.status == 201, answer
        places.setdefault(key, set()).add(answer.headers["location"])
    assert all(len(found) == 1 for found in places.values())
    with apis[0].client() as client:
        stored = Counter(str(message["body"]) for message in client.everything("q"))
    assert stored.pop("second") == 20
    assert stored == Counter(map(str, range(20)))


def test_many_create_one_queue_at_once(apis: list[Hermod]) -> None:
    statuses: list[tuple[str, int]] = []

    def create(index: int) -> None:
        with apis[index // 2 % 2].client() as client:
            for number in range(20):
                path = f"/v2/queues/q{number}"
                if index % 2:
                    statuses.append((path, client.request("PUT", path, {"by": index}).status))
                else:
                    assert client.post(f"q{number}", [index]).status == 201

    together(8, create)
    assert {status for _, status in statuses} <= {201, 204}
    created = Counter(path for path, status in statuses if status == 201)
    assert max(created.values()) == 1
    with apis[0].client() as client:
        listing = client.request("GET", "/v2/queues?with_count=true&limit=20").document()
        assert listing["count"] == len(listing["queues"]) == 20
        for number in range(20):
            assert sorted(message["body"] for message in client.everything(f"q{number}")) == [0, 2, 4, 6]
