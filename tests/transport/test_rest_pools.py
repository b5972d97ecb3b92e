"""Pools: register, show, change, remove, drain. Section 16; section 10.1 and 10.4 of storage."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import servers
from tests.transport.conftest import ADMIN, NO_BODY, Answer, Client, assert_problem, next_link, pages

POOL = "/v2/pools/main"
SECRET = "hunter2"

pytestmark = pytest.mark.parametrize("stores", ["sqlite"], indirect=True)


@pytest.fixture
def operator(open_api) -> Client:
    """An operator of a service that has no pools yet."""
    client: Client = open_api(admin=True, pooling=True).sending(**ADMIN)
    return client


@pytest.fixture
def uri(tmp_path) -> str:
    """A store that no pool has."""
    return f"sqlite:///{tmp_path}/one.db"


@pytest.fixture
def terms(uri) -> dict[str, Any]:
    return {"uri": uri, "weight": 100}


@pytest.fixture
def many(operator: Client, tmp_path: Path) -> Client:
    """Fifteen pools, their names 00 to 14, their weights 100 to 114."""
    for number in range(15):
        terms = {"uri": f"sqlite:///{tmp_path}/{number}.db", "weight": 100 + number, "options": {"n": number}}
        assert operator.put(f"/v2/pools/{number:02}", terms).status_code == 201
    return operator


def names(answer: Answer) -> list[str]:
    return [pool["name"] for pool in answer.json["pools"]]


# --- register


def test_a_pool_is_registered(operator, terms):
    answer = operator.put(POOL, terms)

    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"] == POOL
    shown = operator.get(POOL)
    assert shown.status_code == 200
    assert shown.json == {"href": POOL, "name": "main", **terms, "flavor": None}


def test_a_pool_is_registered_anew(operator, terms, tmp_path):
    operator.put(POOL, terms)
    other = {"uri": f"sqlite:///{tmp_path}/two.db", "weight": 7, "flavor": "gold", "options": {"a": 1}}

    assert operator.put(POOL, other).status_code == 201

    assert operator.get(f"{POOL}?detailed=true").json == {"href": POOL, "name": "main", **other}
    assert operator.put(POOL, terms).status_code == 201
    assert operator.get(f"{POOL}?detailed=true").json == {
        "href": POOL,
        "name": "main",
        **terms,
        "flavor": None,
        "options": {},
    }


@pytest.mark.parametrize("weight", [0, 1, 2**32 - 1])
def test_a_weight_has_32_bits(operator, terms, weight):
    assert operator.put(POOL, {**terms, "weight": weight}).status_code == 201
    assert operator.get(POOL).json["weight"] == weight


@pytest.mark.parametrize("flavor", ["", "x", "f" * 255])
def test_a_flavor_is_a_text(operator, terms, flavor):
    assert operator.put(POOL, {**terms, "flavor": flavor}).status_code == 201
    assert operator.get(POOL).json["flavor"] == (flavor or None)


def bad_values(member: str, *values: Any) -> list[dict[str, Any]]:
    return [{member: value} for value in values]


BAD: list[dict[str, Any]] = [
    *bad_values("weight", -1, 2**32, 2**32 + 1, "big", "1", None, 1.5, True, []),
    *bad_values("uri", -1, [], None, "", "localhost:27017", "x" * 256, "/etc/passwd"),
    *bad_values("options", -1, "wee", [], None),
    *bad_values("flavor", -1, [], "f" * 256),
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_bad_values_are_refused(operator, terms, change):
    assert operator.put(POOL, {**terms, **change}).status_code == 400
    assert operator.get(POOL).status_code == 404


@pytest.mark.parametrize(
    "change", [{"flavor": None}, {"group": "g"}, {"name": "main"}, {"pool_group": "g"}, {"x": 1}], ids=str
)
def test_a_pool_has_no_other_members(operator, terms, change):
    assert_problem(operator.put(POOL, {**terms, **change}), 400, "Invalid request body")
    assert operator.get(POOL).status_code == 404


@pytest.mark.parametrize("missing", ["uri", "weight"])
def test_uri_and_weight_are_required(operator, terms, missing):
    del terms[missing]
    answer = operator.put(POOL, terms)
    assert_problem(answer, 400, "Invalid request body")
    assert missing in answer.json["description"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'"x"', b"\xff"])
def test_a_pool_is_an_object(operator, body):
    assert_problem(operator.put(POOL, body=body), 400, "Invalid request body")


@pytest.mark.parametrize("name", ["p" * 65, "b@d", "b%20d", "%C3%BC", "b%2Fd"])
def test_a_bad_name_is_refused(operator, terms, name):
    assert operator.put(f"/v2/pools/{name}", terms).status_code in (400, 404)
    assert names(operator.get("/v2/pools")) == []


@pytest.mark.parametrize("name", ["p" * 64, "Nice-Pool_2", "a.b", "0"])
def test_a_good_name(operator, terms, name):
    assert operator.put(f"/v2/pools/{name}", terms).status_code == 201
    assert operator.get(f"/v2/pools/{name}").json["name"] == name


# --- the store of a pool


def refused(operator: Client, uri: str, **options: Any) -> str:
    """Register a pool, and change one, which is refused; return the reason."""
    answer = operator.put(POOL, {"uri": uri, "weight": 1, "options": {"timeout": 1, **options}})
    assert_problem(answer, 400, "Invalid API request")
    assert operator.get(POOL).status_code == 404
    return str(answer.json["description"])


def test_a_scheme_that_nobody_knows(operator):
    assert "floppy" in refused(operator, f"floppy://me:{SECRET}@host/a")


def test_a_store_in_memory_cannot_be_a_pool(operator):
    assert "memory" in refused(operator, "memory:").lower()


def test_a_store_that_is_not_there(operator, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(operator, f"sqlite:///{tmp_path}/file/x.db")


def test_a_file_of_another_program(operator, tmp_path):
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    assert "cannot be used" in refused(operator, f"sqlite:///{tmp_path}/theirs.db")
    (tmp_path / "text").write_text("this is no database, and long enough to be looked at " * 100)
    assert "cannot be used" in refused(operator, f"sqlite:///{tmp_path}/text")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port on which nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "mongodb"])
def test_a_store_that_does_not_answer_is_told_without_its_password(operator, logged, silent, scheme):
    query = "?replicaSet=x&serverSelectionTimeoutMS=300" if scheme == "mongodb" else ""
    reason = refused(operator, f"{scheme}://me:{SECRET}%21@127.0.0.1:{silent}/0{query}")

    assert "cannot be used" in reason
    assert SECRET not in reason
    assert SECRET not in logged()


def test_a_server_that_wants_another_password_is_told_without_it(operator, logged, tmp_path):
    """The server's own complaint is passed on."""
    base = servers.redis_uri(tmp_path)
    reason = refused(operator, base.replace("redis://", f"redis://me:{SECRET}@"))

    assert SECRET not in reason
    assert SECRET not in logged()


def test_a_mongodb_without_a_replica_set(operator):
    server = servers.mongod()
    server.start()
    try:
        servers.eventually(lambda: servers.mongod_says(server))
        reason = refused(operator, f"mongodb://127.0.0.1:{server.port}/x")
    finally:
        server.stop()
    assert "replica set" in reason


def test_d6_another_pool_has_the_uri(operator, terms):
    operator.put(POOL, terms)

    answer = operator.put("/v2/pools/other", terms)

    assert_problem(answer, 409, "Resource conflict")
    assert "main" in answer.json["description"]
    assert names(operator.get("/v2/pools")) == ["main"]


def test_another_pool_has_the_store_under_another_uri(operator, terms, tmp_path):
    operator.put(POOL, terms)
    same = {**terms, "uri": f"sqlite:///{tmp_path}/./one.db"}

    assert_problem(operator.put("/v2/pools/other", same), 409, "Resource conflict")
    assert operator.put(POOL, same).status_code == 201, "the same pool may have it"
    assert operator.get(POOL).json["uri"] == same["uri"]


def test_another_pool_has_the_redis_under_another_uri(operator, tmp_path):
    uri = servers.redis_uri(tmp_path)
    operator.put(POOL, {"uri": uri, "weight": 1})

    answer = operator.put(
        "/v2/pools/other", {"uri": f"{uri}&x=1".replace("127.0.0.1", "localhost"), "weight": 1}
    )

    assert answer.status_code in (400, 409)
    assert (
        operator.put(
            "/v2/pools/other", {"uri": uri.replace("127.0.0.1", "localhost"), "weight": 1}
        ).status_code
        == 409
    )


def test_options_go_to_the_driver(operator, terms):
    """Those that nobody knows are ignored."""
    options = {"timeout": 2.5, "max_attempts": 10, "partitions": 2, "x": {"y": [None]}}

    assert operator.put(POOL, {**terms, "options": options}).status_code == 201

    assert operator.get(f"{POOL}?detailed=true").json["options"] == options


@pytest.mark.parametrize("timeout", [0, -1, "2", True, 61, []])
def test_a_timeout_is_a_number_of_seconds(operator, terms, timeout):
    answer = operator.put(POOL, {**terms, "options": {"timeout": timeout}})

    assert_problem(answer, 400, "Invalid API request")
    assert "timeout" in answer.json["description"]


# --- passwords


@pytest.fixture
def guarded(operator, tmp_path) -> Iterator[tuple[Client, str]]:
    """A pool whose server wants a password; and its URI."""
    process = servers._redis("--requirepass", SECRET)
    process.start()
    uri = f"redis://:{SECRET}@127.0.0.1:{process.port}/0"
    try:
        servers.eventually(
            lambda: (
                operator.put(POOL, {"uri": uri, "weight": 1, "options": {"timeout": 5}}).status_code == 201
            )
        )
        yield operator, uri
    finally:
        process.stop()


def test_no_answer_shows_a_password(guarded, logged):
    operator, uri = guarded
    hidden = uri.replace(SECRET, "***")

    answers = [
        operator.get(POOL),
        operator.get(f"{POOL}?detailed=true"),
        operator.get("/v2/pools?detailed=true"),
        operator.patch(POOL, {"weight": 2}),
        operator.put("/v2/pools/other", {"uri": uri, "weight": 1}),
        operator.get(f"{POOL}/drain"),
        operator.get("/v2/health"),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 409, 200, 200]
    assert answers[0].json["uri"] == answers[3].json["uri"] == hidden
    assert answers[2].json["pools"][0]["uri"] == hidden
    assert not any(SECRET in answer.text for answer in answers)
    assert SECRET not in logged()


def test_a_password_that_was_hidden_is_no_password(guarded):
    operator, uri = guarded
    hidden = uri.replace(SECRET, "***")

    for answer in (
        operator.put(POOL, {"uri": hidden, "weight": 1}),
        operator.patch(POOL, {"uri": hidden}),
        operator.put("/v2/pools/other", {"uri": hidden, "weight": 1}),
    ):
        assert_problem(answer, 400, "Invalid API request")
        assert "password" in answer.json["description"]
    assert operator.service.pools.get("main").uri == uri


# --- show


def test_options_are_shown_when_asked_for(operator, terms):
    operator.put(POOL, {**terms, "options": {"a": 1}})

    assert "options" not in operator.get(POOL).json
    assert "options" not in operator.get(f"{POOL}?detailed=false").json
    assert operator.get(f"{POOL}?detailed=True").json["options"] == {"a": 1}
    assert_problem(operator.get(f"{POOL}?detailed=maybe"), 400, "Invalid parameter")


def test_a_pool_that_is_not_there(operator):
    for answer in (
        operator.get(POOL),
        operator.patch(POOL, {"weight": 1}),
        operator.get(f"{POOL}/drain"),
        operator.post(f"{POOL}/drain"),
        operator.delete(f"{POOL}/drain"),
    ):
        assert_problem(answer, 404, "Not found")


# --- list


def test_there_are_no_pools(operator):
    answer = operator.get("/v2/pools")

    assert (answer.status_code, answer.json) == (200, {"pools": [], "links": []})


def test_pools_are_listed_by_name(many):
    answer = many.get("/v2/pools")

    assert names(answer) == [f"{number:02}" for number in range(10)], "ten by default"
    first = answer.json["pools"][0]
    assert set(first) == {"href", "name", "uri", "weight", "flavor"}
    assert (first["href"], first["weight"], first["flavor"]) == ("/v2/pools/00", 100, None)
    assert answer.headers["content-location"] == "/v2/pools"


@pytest.mark.parametrize("limit", [1, 5, 15, 20])
def test_a_listing_can_be_limited(many, limit):
    path = f"/v2/pools?limit={limit}&detailed=true"

    answer = many.get(path)

    assert names(answer) == [f"{number:02}" for number in range(min(limit, 15))]
    assert [pool["options"] for pool in answer.json["pools"]] == [{"n": n} for n in range(min(limit, 15))]
    assert answer.headers["content-location"] == path
    query = parse_qs(urlsplit(next_link(answer)).query)
    assert query == {"limit": [str(limit)], "detailed": ["true"], "marker": [names(answer)[-1]]}


def test_following_the_links_shows_every_pool_once(many):
    found = [names(page) for page in pages(many, "/v2/pools?limit=4&detailed=True")]

    assert [len(page) for page in found] == [4, 4, 4, 3, 0]
    assert [name for page in found for name in page] == [f"{number:02}" for number in range(15)]


@pytest.mark.parametrize(
    ("marker", "first"), [("03", "04"), ("3", None), ("12", "13"), ("zzz", None), ("", "00"), ("03x", "04")]
)
def test_a_marker_is_a_name(many, marker, first):
    found = names(many.get(f"/v2/pools?marker={marker}"))

    assert found[:1] == ([] if first is None else [first])


@pytest.mark.parametrize("limit", ["0", "-1", "21"])
def test_a_limit_out_of_range(operator, limit):
    assert_problem(operator.get(f"/v2/pools?limit={limit}"), 400, "Invalid API request")


@pytest.mark.parametrize("query", ["limit=x", "limit=1.5", "detailed=maybe"])
def test_a_parameter_of_the_wrong_type(operator, query):
    assert_problem(operator.get(f"/v2/pools?{query}"), 400, "Invalid parameter")


def test_the_longest_page_can_be_set(open_api):
    operator = open_api(admin=True, pooling=True, limits={"max_pools_per_page": 3}).sending(**ADMIN)

    assert operator.get("/v2/pools?limit=3").status_code == 200
    assert_problem(operator.get("/v2/pools?limit=4"), 400, "Invalid API request")


# --- change


@pytest.fixture
def pool(operator: Client, terms: dict[str, Any]) -> Client:
    """A client of a service with one pool."""
    operator.put(POOL, {**terms, "options": {"a": 1}})
    return operator


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 0},
        {"flavor": "gold"},
        {"options": {"b": 2}},
        {"weight": 5, "flavor": "gold", "options": {}},
    ],
    ids=str,
)
def test_a_pool_can_be_changed(pool, terms, change):
    answer = pool.patch(POOL, change)

    expected = {"href": POOL, "name": "main", **terms, "flavor": None, "options": {"a": 1}, **change}
    assert answer.status_code == 200
    assert answer.json == {key: value for key, value in expected.items() if key != "options"}
    assert pool.get(f"{POOL}?detailed=true").json == expected


def test_a_pool_can_get_another_store(pool, tmp_path):
    uri = f"sqlite:///{tmp_path}/two.db"

    assert pool.patch(POOL, {"uri": uri}).json["uri"] == uri
    assert pool.get(POOL).json["uri"] == uri


def test_an_empty_flavor_is_none(pool):
    pool.patch(POOL, {"flavor": "gold"})

    assert pool.patch(POOL, {"flavor": ""}).json["flavor"] is None


@pytest.mark.parametrize("change", [{}, {"group": "g"}, {"name": "x", "state": "open"}], ids=str)
def test_a_change_has_to_change_something(pool, change):
    answer = pool.patch(POOL, change)

    assert answer.status_code == 400
    assert all(name in answer.json["description"] for name in ("weight", "uri", "flavor", "options"))


def test_unknown_members_of_a_change_are_ignored(pool):
    answer = pool.patch(POOL, {"weight": 5, "group": "g", "name": "other", "state": "draining"})

    assert (answer.status_code, answer.json["weight"], answer.json["name"]) == (200, 5, "main")


@pytest.mark.parametrize("change", [*BAD, {"flavor": None}], ids=str)
def test_bad_changes_are_refused(pool, terms, change):
    assert pool.patch(POOL, change).status_code == 400
    assert pool.patch(POOL, {**change, "group": 1}).status_code == 400
    assert pool.get(POOL).json == {"href": POOL, "name": "main", **terms, "flavor": None}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1"])
def test_a_change_is_an_object(pool, body):
    assert_problem(pool.patch(POOL, body=body), 400, "Invalid request body")


def test_a_change_to_the_store_of_another_pool(pool, terms, tmp_path):
    pool.put("/v2/pools/other", {"uri": f"sqlite:///{tmp_path}/two.db", "weight": 1})

    assert_problem(pool.patch("/v2/pools/other", {"uri": terms["uri"]}), 409, "Resource conflict")
    same = f"sqlite:///{tmp_path}/../{tmp_path.name}/one.db"
    assert_problem(pool.patch("/v2/pools/other", {"uri": same}), 409, "Resource conflict")


def test_a_change_to_a_store_that_cannot_be_used(pool, terms, tmp_path):
    (tmp_path / "file").write_text("")

    answer = pool.patch(POOL, {"uri": f"sqlite:///{tmp_path}/file/x.db", "weight": 3})

    assert_problem(answer, 400, "Invalid API request")
    assert pool.get(POOL).json["weight"] == terms["weight"]


# --- flavors of different pools


def test_pools_of_a_flavor_can_do_the_same(operator, terms, tmp_path):
    """Section 16: by PUT and by PATCH."""
    other = servers.redis_uri(tmp_path)
    operator.put(POOL, {**terms, "flavor": "gold"})

    answer = operator.put("/v2/pools/other", {"uri": other, "weight": 1, "flavor": "gold"})

    assert_problem(answer, 400, "Unable to create pool")
    assert "main" in answer.json["description"]
    assert operator.get("/v2/pools/other").status_code == 404
    assert operator.put("/v2/pools/other", {"uri": other, "weight": 1}).status_code == 201
    assert operator.patch("/v2/pools/other", {"flavor": "gold"}).status_code == 400
    assert operator.get("/v2/pools/other").json["flavor"] is None
    alike = {"uri": f"sqlite:///{tmp_path}/two.db", "weight": 1, "flavor": "gold"}
    assert operator.put("/v2/pools/alike", alike).status_code == 201


# --- remove


def test_a_pool_can_be_removed_again_and_again(pool):
    assert pool.delete(POOL).status_code == 204
    assert pool.delete(POOL).status_code == 204
    assert pool.get(POOL).status_code == 404


def test_the_store_of_a_removed_pool_can_be_registered_again(pool, terms):
    pool.delete(POOL)

    assert pool.put("/v2/pools/other", terms).status_code == 201


def test_the_last_pool_of_a_flavor_stays(pool, tmp_path):
    """Whether or not there is such a flavor; otherwise after it was detached."""
    pool.patch(POOL, {"flavor": "gold"})

    assert_problem(pool.delete(POOL), 403, "Unable to delete")
    pool.put("/v2/pools/other", {"uri": f"sqlite:///{tmp_path}/two.db", "weight": 1, "flavor": "gold"})
    assert pool.delete(POOL).status_code == 204
    assert_problem(pool.delete("/v2/pools/other"), 403, "Unable to delete")
    pool.patch("/v2/pools/other", {"flavor": ""})
    assert pool.delete("/v2/pools/other").status_code == 204


def test_d1_a_pool_with_queues_stays(pool):
    pool.create_queue("q1")

    assert_problem(pool.delete(POOL), 403, "Unable to delete")
    pool.create_queue("q2")
    assert pool.get(POOL).status_code == 200, "and it goes on taking queues"
    pool.delete("/v2/queues/q1")
    pool.delete("/v2/queues/q2")
    assert pool.delete(POOL).status_code == 204


# --- drain


def test_a_pool_is_drained(pool, tmp_path, clock):
    pool.create_queue("q1")
    pool.post_bodies("a", "b")
    idle = {
        "pool": "main",
        "active": False,
        "queues_left": 1,
        "queues_moved": 0,
        "messages_moved": 0,
        "messages_per_second": 0.0,
        "problem": None,
    }
    assert pool.get(f"{POOL}/drain").json == idle
    pool.put("/v2/pools/other", {"uri": f"sqlite:///{tmp_path}/two.db", "weight": 1})

    begun = pool.post(f"{POOL}/drain")

    assert (begun.status_code, begun.json) == (202, {**idle, "active": True})
    assert pool.post(f"{POOL}/drain").status_code == 202, "once more is the same"
    clock.advance(2)
    assert pool.service.moving.run(Event())
    done = {**idle, "active": True, "queues_left": 0, "queues_moved": 1, "messages_moved": 2}
    assert pool.get(f"{POOL}/drain").json == {**done, "messages_per_second": 1.0}
    assert pool.listed() == ["a", "b"]
    assert pool.delete(f"{POOL}/drain").status_code == 204
    assert pool.get(f"{POOL}/drain").json["active"] is False
    assert pool.delete(POOL).status_code == 204


def test_a_new_weight_does_not_end_a_drain(pool):
    pool.post(f"{POOL}/drain")
    pool.patch(POOL, {"weight": 7})

    assert pool.get(f"{POOL}/drain").json["active"] is True


# --- who may, and where

REQUESTS = [
    ("GET", "/v2/pools", NO_BODY),
    ("GET", POOL, NO_BODY),
    ("PUT", POOL, {"uri": "sqlite:///x.db", "weight": 1}),
    ("PATCH", POOL, {"weight": 1}),
    ("DELETE", POOL, NO_BODY),
    ("GET", f"{POOL}/drain", NO_BODY),
    ("POST", f"{POOL}/drain", NO_BODY),
    ("DELETE", f"{POOL}/drain", NO_BODY),
]


@pytest.mark.parametrize("roles", [None, "", "member", "reader"])
@pytest.mark.parametrize(("method", "path", "document"), REQUESTS)
def test_pools_are_for_operators(pool, method, path, document, roles):
    before = pool.get(POOL).json

    answer = pool.request(method, path, document, headers={"X-Roles": roles})

    assert_problem(answer, 403, "Not authorized")
    assert pool.get(POOL).json == before


@pytest.mark.parametrize(("admin", "pooling"), [(False, True), (True, False), (False, False)])
@pytest.mark.parametrize(("method", "path", "document"), REQUESTS)
def test_pools_are_not_served_unless_they_are_asked_for(open_api, admin, pooling, method, path, document):
    api = open_api(admin=admin, pooling=pooling).sending(**ADMIN)

    answer = api.request(method, path, document)

    assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


@pytest.mark.parametrize(("method", "path", "document"), REQUESTS)
def test_client_and_project_are_required_all_the_same(operator, method, path, document):
    anybody = operator.sending(Client_ID=None)
    assert_problem(anybody.request(method, path, document), 400, "Missing header value")
    nowhere = operator.sending(X_Project_ID=None)
    assert_problem(nowhere.request(method, path, document), 400, "Project-Id Missing")


def test_pools_belong_to_no_project(pool):
    assert pool.of("red").get(POOL).json == pool.get(POOL).json


@pytest.mark.parametrize(("path", "methods"), [("/v2/pools", "POST PUT DELETE PATCH"), (POOL, "POST")])
def test_other_methods_are_not_allowed(pool, path, methods):
    for method in methods.split():
        assert pool.request(method, path, {}).status_code == 405


def test_the_home_document_tells_of_pools(open_api):
    for admin, pooling in ((True, True), (True, False), (False, True)):
        resources = open_api(admin=admin, pooling=pooling).get("/v2/").json["resources"]
        told = {name for name in resources if "pool" in name or "flavor" in name}
        expected = {"rel/pools", "rel/pool", "rel/flavors", "rel/flavor"} if admin and pooling else set()
        assert told == expected
    resources = open_api(admin=True, pooling=True).get("/v2/").json["resources"]
    assert resources["rel/pools"] == {
        "href-template": "/v2/pools{?detailed,limit,marker}",
        "href-vars": {"detailed": "param/detailed", "limit": "param/pool_limit", "marker": "param/marker"},
        "hints": {"allow": ["GET"], "formats": {"application/json": {}}},
    }
    assert resources["rel/pool"] == {
        "href-template": "/v2/pools/{pool_name}",
        "href-vars": {"pool_name": "param/pool_name"},
        "hints": {"allow": ["GET", "PUT", "PATCH", "DELETE"], "formats": {"application/json": {}}},
    }


def test_without_the_store_of_the_records_nothing_can_be_told(pool, driver, tmp_path, monkeypatch):
    # The store of a new pool is made there, before it is known that nobody can note it.
    monkeypatch.chdir(tmp_path)
    driver.break_()

    for method, path, document in REQUESTS:
        answer = pool.request(method, path, document)
        assert answer.status_code in (400, 503), path
        if path != POOL or method != "PUT":
            assert_problem(answer, 503, "Service temporarily unavailable")
