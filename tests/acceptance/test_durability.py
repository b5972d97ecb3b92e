"""`kill -9` of every process at any instant: what was answered is so, before the kill and after the restart."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from tests.acceptance.conftest import MakeHermod
from tests.acceptance.processes import GONE, Client, Hermod, Reply, together

PRODUCERS = 6
CONSUMERS = 6
ROUNDS = 3
BUSY = 503


class Pacemaker:
    """Kills and restarts the service whenever so and so many more things were answered."""

    def __init__(self, service: Hermod, every: int) -> None:
        self._service = service
        self._every = every
        self._answered = 0
        self._restarts = 0
        self._changed = threading.Condition()
        self.over = threading.Event()

    def answered(self) -> None:
        """Note that something was answered."""
        with self._changed:
            self._answered += 1
            self._changed.notify_all()

    def wait_for_restart(self, seen: int) -> int:
        """Return the number of restarts, once it is another one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._restarts != seen, timeout=60)
            return self._restarts

    def run(self) -> None:
        try:
            for _ in range(ROUNDS):
                with self._changed:
                    goal = self._answered + self._every
                    assert self._changed.wait_for(lambda: self._answered >= goal, timeout=60)  # noqa: B023
                self._service.kill()
                self._service.start()
                with self._changed:
                    self._restarts += 1
                    self._changed.notify_all()
        finally:
            self.over.set()


@dataclass
class Post:
    """A post and what its producer knows of it."""

    bodies: list[str]
    key: str | None = None
    ids: list[str] = field(default_factory=list)  # as answered; none if there was no answer


def test_p1_p10_what_was_answered_survives_kill_9(hermod: MakeHermod, shared_store: str) -> None:
    service = hermod("serve", "--workers", "2", "--threads", "4", store=shared_store).start()
    pacemaker = Pacemaker(service, every=120)
    posts: list[list[Post]] = [[] for _ in range(PRODUCERS)]
    retried = Counter[bool]()

    def produce(producer: int) -> None:
        restarts = 0
        with service.client() as client:
            while not pacemaker.over.is_set():
                number = len(posts[producer])
                bodies = [f"{producer}/{number}/{n}" for n in range(1 + number % 3)]
                post = Post(bodies, key=f"post-{producer}-{number}" if producer % 2 else None)
                posts[producer].append(post)
                tries = 0
                while not post.ids and (post.key or not tries):  # only with a key it is safe to try again
                    tries += 1
                    try:
                        attempt(client, post)
                    except GONE:
                        restarts = pacemaker.wait_for_restart(restarts)
                retried[bool(post.ids)] += tries > 1

    def attempt(client: Client, post: Post) -> None:
        answer = client.post("q", post.bodies, key=post.key)
        if (
            answer.status == BUSY
        ):  # a store that is a server may lock a queue for a moment when its client is killed
            return
        assert answer.status == 201, answer
        post.ids = [path.rpartition("/")[2] for path in answer.document()["resources"]]
        pacemaker.answered()

    together(PRODUCERS + 1, lambda index: pacemaker.run() if index == PRODUCERS else produce(index))

    with service.client() as client:
        for post in (keyed for producer in posts for keyed in (*producer[:2], *producer[-2:]) if keyed.key):
            repeated = client.post("q", post.bodies, key=post.key)
            assert repeated.status == 201
            assert [path.rpartition("/")[2] for path in repeated.document()["resources"]] == post.ids
        found = client.everything("q")
        stats = client.request("GET", "/v2/queues/q/stats").document()["messages"]
    where = {message["id"]: message["body"] for message in found}
    times = Counter(message["body"] for message in found)
    assert stats["total"] == len(found) == len(where)
    assert [message["id"] for message in found] == sorted(where)
    for producer in posts:
        for post in producer:
            counts = {times[body] for body in post.bodies}
            assert len(counts) == 1, f"a part of a post was stored: {post}"
            assert counts <= ({1} if post.ids else {0, 1}), post
            assert [where.get(id_) for id_ in post.ids] == post.bodies[: len(post.ids)]
        # What one producer posted is in the order in which it was posted.
        placed = [id_ for post in producer for id_ in post.ids]
        assert placed == sorted(placed)
    known = {body for producer in posts for post in producer for body in post.bodies}
    assert set(times) <= known
    assert retried[True] == sum(retried.values()) > 0


@dataclass
class Consumers:
    """Workers on one queue and its dead letters, and what they know of each message."""

    service: Hermod
    pacemaker: Pacemaker
    acked: set[str] = field(default_factory=set)  # deleted or popped, and answered so
    unknown: set[str] = field(default_factory=set)  # told to be deleted, and not answered yet
    busy: int = 0  # requests that were answered 503
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, consumer: int) -> None:
        """Work until the pacemaker's rounds are over."""
        way = [self.delete, self.pop, self.delete, self.give_back][consumer % 4]
        queue = "dead" if consumer % 4 == 0 else "q"
        restarts = 0
        with self.service.client() as client:
            while not self.pacemaker.over.is_set():
                try:
                    way(client, queue)
                except GONE:
                    restarts = self.pacemaker.wait_for_restart(restarts)

    def pop(self, client: Client, queue: str) -> None:
        """Take two away: they are gone, answered or not; only what was answered is known."""
        popped = client.request("DELETE", f"/v2/queues/{queue}/messages?pop=2")
        if self.is_busy(popped):
            return
        assert popped.status == 200, popped
        self.note(popped.messages())

    def delete(self, client: Client, queue: str) -> None:
        """Claim some and delete them one by one."""
        for message in self.claim(client, queue).messages():
            with self.lock:
                assert message["body"] not in self.acked, "an acked message was handed out"
                self.unknown.add(message["body"])
            answer = client.request("DELETE", message["href"])
            if not self.is_busy(answer):
                assert answer.status == 204, answer
                self.note([message])

    def give_back(self, client: Client, queue: str) -> None:
        """Claim some and release them: the next claim moves them to the dead letters."""
        claim = self.claim(client, queue)
        if claim.status == 201:
            released = client.request("DELETE", claim.headers["location"])
            assert self.is_busy(released) or released.status == 204, released

    def claim(self, client: Client, queue: str) -> Reply:
        claim = client.request("POST", f"/v2/queues/{queue}/claims?limit=4", {"ttl": 600, "grace": 60})
        if self.is_busy(claim):
            return replace(claim, status=204, body=b"")
        assert claim.status in (201, 204), claim
        return claim

    def is_busy(self, reply: Reply) -> bool:
        """Tell whether the store was locked: what was asked may have been done."""
        busy = reply.status == BUSY
        with self.lock:
            self.busy += busy
        return busy

    def note(self, messages: list[dict[str, Any]]) -> None:
        """Note that these were answered to be gone."""
        bodies = {message["body"] for message in messages}
        with self.lock:
            assert not bodies & self.acked
            self.acked |= bodies
            self.unknown -= bodies
        self.pacemaker.answered()


def test_p4_acked_stays_acked_through_kill_9(hermod: MakeHermod, shared_store: str) -> None:
    service = hermod("serve", "--workers", "2", "--threads", "4", store=shared_store).start()
    bodies = [f"m{number}" for number in range(3000)]
    with service.client() as client:
        dead_letter = {"_max_claim_count": 1, "_dead_letter_queue": "dead"}
        assert client.request("PUT", "/v2/queues/q", dead_letter).status == 201
        for start in range(0, len(bodies), 500):
            assert client.post("q", bodies[start : start + 500]).status == 201
    pacemaker = Pacemaker(service, every=100)
    consumers = Consumers(service, pacemaker)

    together(CONSUMERS + 1, lambda index: pacemaker.run() if index == CONSUMERS else consumers.run(index))

    with service.client() as client:
        left = Counter(message["body"] for queue in ("q", "dead") for message in client.everything(queue))
        totals = sum(
            client.request("GET", f"/v2/queues/{queue}/stats").document()["messages"]["total"]
            for queue in ("q", "dead")
        )
    assert totals == left.total()
    assert not consumers.acked & set(left), "an acked message is there again"
    assert max(left.values(), default=1) == 1
    # Of each popper, two messages at most were in an answer that it never received, in each round.
    lost = set(bodies) - set(left) - consumers.acked - consumers.unknown
    poppers = len([n for n in range(CONSUMERS) if n % 4 == 1])
    assert len(lost) <= 2 * (ROUNDS * poppers + consumers.busy)
    assert len(consumers.acked) >= 100 * ROUNDS
