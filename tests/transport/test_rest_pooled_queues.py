"""Queues over pools, as clients and operators see them. Quirks D1 to D9; section 10.3 of storage."""

from __future__ import annotations

import base64
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from queues.models import Address
from queues.ports import Driver
from storage.registry import connect
from tests import servers
from tests.transport.conftest import (
    ADMIN,
    CLIENT,
    NO_BODY,
    PROJECT,
    BreakableStores,
    Client,
    Clock,
    assert_problem,
    ids_of,
    pages,
)
from transport.settings import Settings
from transport.wiring import assemble
from transport.wsgi.app import create_app

Q1 = "/v2/queues/q1"
KEY = "k1:" + base64.b64encode(bytes(32)).decode()
GOLD = {"op": "add", "path": "/metadata/_flavor", "value": "gold"}
NO_FLAVOR = {"op": "remove", "path": "/metadata/_flavor"}


@dataclass
class Cluster:
    """Processes over the same stores; pools are called p1, p2 and so on."""

    folder: Path
    control: Driver
    stores: BreakableStores
    points: list[float] = field(default_factory=list)  # what chance will draw, one after the other; then 0

    def node(self, *, draw: Callable[[], float] | None = None, **settings: Any) -> Client:
        """Start a process, and return an operator's client of it."""
        wanted = Settings(
            store=f"sqlite:///{self.folder}/control.db",
            **{
                "pooling": True,
                "admin": True,
                "signed_url": {"secret_keys": ["a key of the tests"]},
                **settings,
            },
        )

        def next_point() -> float:
            return self.points.pop(0) if self.points else 0.0

        service = assemble(wanted, self.control, stores=cast(Any, self.stores), draw=draw or next_point)
        headers = {"Client-ID": CLIENT, "X-Project-ID": PROJECT, **ADMIN}
        return Client(service=service, app=create_app(service), headers=headers)

    def uri(self, number: int, kind: str = "sqlite") -> str:
        folder = self.folder / f"p{number}"
        folder.mkdir(exist_ok=True)
        if kind == "redis":
            return servers.redis_uri(folder)
        return servers.mongodb_uri(folder) if kind == "mongodb" else f"sqlite:///{folder}/store.db"

    def add(self, client: Client, number: int, kind: str = "sqlite", **terms: Any) -> None:
        answer = client.put(f"/v2/pools/p{number}", {"uri": self.uri(number, kind), "weight": 1, **terms})
        assert answer.status_code == 201, answer.text

    def break_(self, number: int, kind: str = "sqlite") -> None:
        self.stores.of(self.uri(number, kind)).break_()

    def mend(self, number: int, kind: str = "sqlite") -> None:
        self.stores.of(self.uri(number, kind)).mend()

    def messages(self, number: int, kind: str = "sqlite") -> int:
        """Count what a pool holds, once what was left behind is cleared away."""
        store = self.stores.of(self.uri(number, kind)).messages
        while store.expire(now=store.clock(), limit=1000):
            pass
        found: int = store.totals(now=store.clock()).total
        return found


@pytest.fixture
def cluster(tmp_path: Path, clock: Clock) -> Iterator[Cluster]:
    control = connect(f"sqlite:///{tmp_path}/control.db", timeout=5.0, clock=clock)
    stores = BreakableStores(clock)
    yield Cluster(tmp_path, control, stores)
    stores.close()
    control.close()


@pytest.fixture
def api(cluster: Cluster) -> Client:
    """A client of a service with the pools p1 and p2; queues go to p1 unless chance says otherwise."""
    client = cluster.node()
    for number in (1, 2):
        cluster.add(client, number)
    return client


def pool_of(client: Client, queue: str = "q1", project: str = PROJECT) -> str:
    found = client.service.queues.find(Address(project=project, queue=queue))
    assert found is not None
    return found.pool


def run_mover(client: Client) -> None:
    assert client.service.moving.run(Event())


# --- choice


@pytest.mark.parametrize("create", [lambda api: api.create_queue(), lambda api: api.post_bodies("a")])
@pytest.mark.parametrize(("point", "pool"), [(0.0, "p1"), (0.49, "p1"), (0.5, "p2"), (0.99, "p2")])
def test_a_queue_goes_to_a_pool_by_chance(api, cluster, create, point, pool):
    """Whether it is created or comes into being with its first message."""
    cluster.points.append(point)

    create(api)

    assert pool_of(api) == pool


def test_the_heavier_the_likelier(cluster):
    points = iter([(number + 0.5) / 12 for number in range(12)])
    api = cluster.node(draw=points.__next__)
    for number, weight in enumerate((1, 3, 0, 8), 1):
        cluster.add(api, number, weight=weight)

    for number in range(12):
        api.create_queue(f"q{number}")

    chosen = Counter(pool_of(api, f"q{number}") for number in range(12))
    assert chosen == {"p1": 1, "p2": 3, "p4": 8}


def test_a_pool_without_weight_serves_what_it_has(api):
    api.post_bodies("a")
    api.patch("/v2/pools/p1", {"weight": 0})

    api.create_queue("q2")
    api.post_bodies("b")

    assert (pool_of(api), pool_of(api, "q2")) == ("p1", "p2")
    assert api.listed() == ["a", "b"]


def test_without_any_weight_nothing_new_can_be_made(api):
    api.create_queue("old")
    for name in ("p1", "p2"):
        api.patch(f"/v2/pools/{name}", {"weight": 0})

    assert_problem(api.put(Q1), 503, "Service temporarily unavailable")
    posted = api.post(f"{Q1}/messages", {"messages": [{"body": 1}]})
    assert_problem(posted, 503, "Service temporarily unavailable")
    assert api.queue_names() == ["old"]
    assert api.put("/v2/queues/old").status_code == 204
    assert api.get(f"{Q1}/messages").json["messages"] == []
    assert api.delete(Q1).status_code == 204


def test_d4_pools_with_a_flavor_are_for_those_that_ask_for_it(api, cluster):
    api.put("/v2/flavors/gold", {"pool_list": ["p1"]})

    for number in range(4):
        cluster.points.append(number / 4)
        api.create_queue(f"plain{number}")
    api.create_queue("golden", {"_flavor": "gold"})

    assert {pool_of(api, f"plain{number}") for number in range(4)} == {"p2"}
    assert pool_of(api, "golden") == "p1"


def test_an_unknown_flavor(api):
    answer = api.put(Q1, {"_flavor": "silver"})

    assert_problem(answer, 400, "Invalid API request")
    assert "silver" in answer.json["description"]
    assert api.queue_names() == []
    api.create_queue()
    assert_problem(api.change("q1", {**GOLD, "value": "silver"}), 404, "Not found")
    assert api.metadata() == {}


def test_a_flavor_of_another_project_is_unknown(api):
    api.of("red").put("/v2/flavors/gold", {"pool_list": ["p1"]})

    assert_problem(api.put(Q1, {"_flavor": "gold"}), 400, "Invalid API request")
    assert api.of("red").put(Q1, {"_flavor": "gold"}).status_code == 201


def test_d3_a_flavor_whose_pools_have_no_weight(api):
    api.put("/v2/flavors/gold", {"pool_list": ["p1"]})
    api.patch("/v2/pools/p1", {"weight": 0})

    assert_problem(api.put(Q1, {"_flavor": "gold"}), 400, "Invalid API request")
    assert api.queue_names() == []


def test_without_pools_the_default_store_serves(cluster):
    """And queues that were made there stay there when pools come."""
    api = cluster.node()
    api.post_bodies("a")
    cluster.add(api, 1)
    api.post_bodies("b")
    api.post_bodies("c", queue="q2")

    assert (pool_of(api), pool_of(api, "q2")) == ("", "p1")
    assert (api.listed(), api.listed("q2")) == (["a", "b"], ["c"])
    assert api.queue_names() == ["q1", "q2"]
    assert set(api.get("/v2/health").json) == {"catalog_reachable", "p1"}
    api.delete(Q1)
    api.post_bodies("d")
    assert pool_of(api) == "p1"


def test_topics_live_in_no_pool(api, cluster):
    api.put("/v2/topics/q1", {"colour": "red"})
    cluster.break_(1)
    cluster.break_(2)

    assert api.get("/v2/topics/q1").json["colour"] == "red"
    assert api.get("/v2/topics/q1/stats").status_code == 200
    assert api.delete("/v2/topics/q1").status_code == 204


# --- everything a queue can do


@pytest.mark.parametrize("kind", ["sqlite", "redis", "mongodb"])
def test_a_queue_in_a_pool_can_do_everything(cluster, kind):
    api = cluster.node()
    cluster.add(api, 1, kind)

    ids = api.post_bodies("a", "b", "c")
    claim = api.claim(limit=1)
    assert api.delete(claim.delete_path()).status_code == 204
    assert api.stats() == (2, 0)
    assert [api.get(f"{Q1}/messages/{id_}").status_code for id_ in ids] == [404, 200, 200]
    assert api.delete(f"{Q1}/messages?pop=1").json["messages"][0]["body"] == "b"
    shared = api.post(f"{Q1}/share", {"methods": ["GET"]}).json
    signed = {
        "URL-Signature": shared["signature"],
        "URL-Expires": shared["expires"],
        "URL-Methods": "GET",
        "URL-Paths": ",".join(shared["paths"]),
    }
    assert api.get(f"{Q1}/messages?echo=true", headers=signed).status_code == 200
    assert api.post(f"{Q1}/purge").status_code == 204
    assert api.stats() == (0, 0)
    api.post_bodies("d")
    assert cluster.messages(1, kind) == 1
    assert api.delete(Q1).status_code == 204
    assert cluster.messages(1, kind) == 0
    assert api.stats() == (0, 0)


def test_queues_are_listed_over_all_pools(api, cluster):
    for number in range(9):
        cluster.points.append(number / 9)
        api.create_queue(f"q{number}", {"even": number % 2})

    found = [[queue["name"] for queue in page.json["queues"]] for page in pages(api, "/v2/queues?limit=4")]

    assert found == [["q0", "q1", "q2", "q3"], ["q4", "q5", "q6", "q7"], ["q8"], []]
    assert {pool_of(api, f"q{number}") for number in range(9)} == {"p1", "p2"}
    assert api.get("/v2/queues?with_count=true&even=1").json["count"] == 9


def test_d8_a_queue_that_is_made_anew_has_nothing_of_the_old_one(api, cluster):
    """In another pool, and in the same; ids and claims of the old one are foreign."""
    for point, pool in ((0.9, "p2"), (0.0, "p1"), (0.0, "p1")):
        old = api.post_bodies("old", "older")
        claim = api.claim(limit=1)
        assert api.delete(Q1).status_code == 204
        cluster.points.append(point)
        api.post_bodies("new")

        assert pool_of(api) == pool
        assert api.listed() == ["new"]
        assert_problem(api.get(f"{Q1}/messages?ids={','.join(old)}"), 404, "Not found")
        assert_problem(api.get(claim.path), 404, "Not found")
        assert_problem(api.patch(claim.path, {"ttl": 100}), 404, "Not found")
        assert api.delete(f"{Q1}/messages?ids={','.join(old)}").status_code == 204
        assert api.listed() == ["new"]
        api.delete(Q1)


# --- changes of metadata


def test_d2_a_change_moves_nothing(api, cluster):
    """Even where the flavor of the pool is not that of the queue any more."""
    api.post_bodies("a")
    api.patch("/v2/pools/p1", {"flavor": "gold"})

    assert api.change("q1", {"op": "add", "path": "/metadata/colour", "value": "red"}).status_code == 200
    run_mover(api)

    assert pool_of(api) == "p1"
    assert api.listed() == ["a"]


def test_d2_a_queue_that_asks_for_another_flavor_takes_its_messages_along(api):
    api.put("/v2/flavors/gold", {"pool_list": ["p2"]})
    ids = api.post_bodies("a", "b", "c")
    claim = api.claim(limit=1)

    assert api.change("q1", GOLD).status_code == 200
    assert api.listed() == ["b", "c"], "nothing is out of reach meanwhile"
    run_mover(api)

    assert pool_of(api) == "p2"
    assert api.listed() == ["b", "c"]
    assert [
        message["body"] for message in api.get(f"{Q1}/messages?ids={','.join(ids)}").json["messages"]
    ] == [
        "a",
        "b",
        "c",
    ]
    assert api.get(claim.path).json["messages"][0]["body"] == "a"
    assert api.delete(claim.delete_path()).status_code == 204
    api.post_bodies("d")
    assert api.listed() == ["b", "c", "d"]
    assert api.change("q1", NO_FLAVOR).status_code == 200
    run_mover(api)
    assert (pool_of(api), api.listed()) == ("p1", ["b", "c", "d"])


def test_a_queue_of_the_default_store_is_not_moved_by_its_flavor(cluster):
    api = cluster.node()
    api.post_bodies("a")
    cluster.add(api, 1)
    api.put("/v2/flavors/gold", {"pool_list": ["p1"]})

    assert api.change("q1", GOLD).status_code == 200
    run_mover(api)

    assert api.listed() == ["a"]


def test_d9_changes_at_the_same_time_are_all_kept(api):
    """In pools as anywhere: each is made to what the others left."""
    api.create_queue()
    barrier = threading.Barrier(4)
    statuses: list[int] = []

    def change(number: int) -> None:
        barrier.wait(30)
        for step in range(5):
            operation = {"op": "add", "path": f"/metadata/k{number}-{step}", "value": step}
            while True:
                status = api.change("q1", operation).status_code
                statuses.append(status)
                if status != 409:
                    break

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert set(statuses) <= {200, 409}
    assert api.metadata() == {f"k{number}-{step}": step for number in range(4) for step in range(5)}


# --- pools that go


def test_d1_a_pool_can_be_removed_when_its_queues_have_gone(api):
    """And not before; clients notice nothing."""
    for number in range(3):
        api.post_bodies(number, queue=f"q{number}")
    assert_problem(api.delete("/v2/pools/p1"), 403, "Unable to delete")

    api.post("/v2/pools/p1/drain")
    run_mover(api)

    assert api.delete("/v2/pools/p1").status_code == 204
    assert [api.listed(f"q{number}") for number in range(3)] == [[0], [1], [2]]
    assert {pool_of(api, f"q{number}") for number in range(3)} == {"p2"}
    assert api.get("/v2/pools/p2/drain").json["queues_left"] == 3


def test_d5_another_uri_holds_without_a_restart(api, cluster, tmp_path):
    """The file is copied to another place; a second process serves from there at once."""
    other = cluster.node(cache={"queue_age": 0})
    ids = api.post_bodies("a")
    assert other.listed() == ["a"]
    moved = tmp_path / "moved.db"
    source = cluster.stores.of(cluster.uri(1))
    with sqlite3.connect(cluster.folder / "p1" / "store.db") as old, sqlite3.connect(moved) as new:
        old.backup(new)
    old.close()
    new.close()

    assert api.patch("/v2/pools/p1", {"uri": f"sqlite:///{moved}"}).status_code == 200
    source.break_()

    assert other.listed() == ["a"]
    assert [ids_of(other.post(f"{Q1}/messages", {"messages": [{"body": "b"}]}))[0][16:]] == [ids[0][16:]]
    assert api.listed() == ["a", "b"]


# --- pools that are down


def test_d5_a_pool_that_is_down_is_the_matter_of_its_queues(api, cluster):
    api.post_bodies("a")
    cluster.points.append(0.9)
    api.post_bodies("b", queue="q2")
    cluster.break_(1)

    requests: list[tuple[str, str, Any]] = [
        ("GET", f"{Q1}/messages", NO_BODY),
        ("POST", f"{Q1}/messages", {"messages": [{"body": 1}]}),
        ("POST", f"{Q1}/claims", {}),
        ("GET", f"{Q1}/stats", NO_BODY),
        ("POST", f"{Q1}/purge", NO_BODY),
    ]
    for method, path, document in requests:
        assert_problem(api.request(method, path, document), 503, "Service temporarily unavailable")
    assert api.get(Q1).status_code == 200
    assert api.put(Q1).status_code == 204
    assert api.listed("q2") == ["b"]
    assert api.queue_names() == ["q1", "q2"]
    assert api.get("/v2/ping").status_code == 204
    assert api.get("/v2/pools").status_code == 200
    cluster.points.append(0.9)
    api.create_queue("q3")
    report = api.get("/v2/health")
    assert report.status_code == 200
    assert report.json["catalog_reachable"] is True
    assert {name: report.json[name]["storage_reachable"] for name in ("p1", "p2")} == {
        "p1": False,
        "p2": True,
    }
    down = report.json["p1"]["operation_status"]
    for name in ("post_messages", "list_messages", "claim_messages", "delete_queue"):
        assert (down[name]["succeeded"], bool(down[name]["ref"])) == (False, True)
    assert all(trial["succeeded"] for trial in report.json["p2"]["operation_status"].values())

    cluster.mend(1)
    assert api.listed() == ["a"]


def test_d5_a_server_that_is_down_is_told_soon(cluster):
    """A real one, ended and started again; its queues go on."""
    process = servers._redis()
    process.start()
    try:
        api = cluster.node()
        terms = {"uri": f"redis://127.0.0.1:{process.port}/0", "weight": 1, "options": {"timeout": 1}}
        servers.eventually(lambda: api.put("/v2/pools/r", terms).status_code == 201)
        api.post_bodies("a")
        cluster.add(api, 1)
        process.kill()

        started = time.monotonic()
        answers = [api.get(f"{Q1}/messages"), api.post(f"{Q1}/messages", {"messages": [{"body": "b"}]})]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert api.get("/v2/health").json["r"]["storage_reachable"] is False
        assert time.monotonic() - started < 15
        api.post_bodies("c", queue="q2")
        assert api.get("/v2/ping").status_code == 204

        process.start()
        servers.eventually(lambda: api.get(f"{Q1}/messages").status_code == 200)
        assert api.listed()[:1] == ["a"]
    finally:
        process.stop()


def test_health_counts_per_pool_and_leaves_nothing_behind(api, cluster):
    api.post_bodies("a", "b")
    api.claim(limit=1)
    cluster.points.append(0.9)
    api.of("red").post_bodies("c")

    for _ in range(2):
        report = api.get("/v2/health").json

    assert set(report) == {"catalog_reachable", "p1", "p2"}
    assert report["p1"]["message_volume"] == {"free": 1, "claimed": 1, "total": 2}
    assert report["p2"]["message_volume"] == {"free": 1, "claimed": 0, "total": 1}
    assert (cluster.messages(1), cluster.messages(2)) == (2, 1)


def test_a_pool_that_was_taken_off_the_list_by_force(api):
    """Its queues are unavailable; others are not."""
    api.post_bodies("a")
    api.service.pools.remove("p1", in_use=lambda: False)

    assert_problem(api.get(f"{Q1}/messages"), 503, "Service temporarily unavailable")
    api.create_queue("q2")
    assert pool_of(api, "q2") == "p2"
    assert api.queue_names() == ["q1", "q2"]


# --- dead letters


@pytest.mark.parametrize("kinds", [("sqlite", "sqlite"), ("redis", "sqlite"), ("sqlite", "mongodb")], ids=str)
def test_dead_letters_cross_pools(cluster, clock, kinds):
    """Encrypted ones stay encrypted on the way, and can be read at the end."""
    api = cluster.node(encryption={"keys": [KEY]})
    for number, kind in enumerate(kinds, 1):
        cluster.add(api, number, kind)
    cluster.points += [0.0, 0.9]
    metadata = {"_dead_letter_queue": "dead", "_max_claim_count": 1, "_enable_encrypt_messages": True}
    api.create_queue("q1", metadata)
    api.create_queue("dead", {"_enable_encrypt_messages": True})
    api.post_bodies({"secret": 1}, {"secret": 2})
    api.claim(ttl=60)
    clock.advance(60)

    assert api.post(f"{Q1}/claims", {}).status_code == 204

    assert (pool_of(api), pool_of(api, "dead")) == ("p1", "p2")
    assert api.listed("dead") == [{"secret": 1}, {"secret": 2}]
    assert api.claim("dead").messages[0]["body"] == {"secret": 1}
    assert api.stats() == (0, 0)
    assert api.queue_names() == ["dead", "q1"]


@pytest.mark.parametrize("name", ["q1>dead", "q1%3Edead"])
def test_an_annex_cannot_be_addressed(api, name):
    for method in ("GET", "PUT", "DELETE"):
        assert_problem(api.request(method, f"/v2/queues/{name}"), 400, "Invalid queue identification")
