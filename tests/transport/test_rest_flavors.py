"""Flavors: declare, show, change, remove. Section 17; section 10.2 of storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import servers
from tests.transport.conftest import ADMIN, NO_BODY, Answer, Client, assert_problem, next_link, pages

FLAVOR = "/v2/flavors/gold"
CAPABILITIES = ["FIFO", "CLAIMS", "DURABILITY", "AOD"]

pytestmark = pytest.mark.parametrize("stores", ["sqlite"], indirect=True)


@pytest.fixture
def operator(open_api, tmp_path) -> Client:
    """An operator of a service with the pools p1, p2 and p3."""
    client: Client = open_api(admin=True, pooling=True).sending(**ADMIN)
    for number in (1, 2, 3):
        terms = {"uri": f"sqlite:///{tmp_path}/p{number}.db", "weight": 1}
        assert client.put(f"/v2/pools/p{number}", terms).status_code == 201
    return client


@pytest.fixture
def gold(operator: Client) -> Client:
    """There is a flavor with the pools p1 and p2."""
    assert operator.put(FLAVOR, {"pool_list": ["p2", "p1"]}).status_code == 201
    return operator


def names(answer: Answer) -> list[str]:
    return [flavor["name"] for flavor in answer.json["flavors"]]


def flavors_of_pools(client: Client) -> dict[str, str | None]:
    return {pool["name"]: pool["flavor"] for pool in client.get("/v2/pools").json["pools"]}


# --- declare


def test_a_flavor_is_declared(operator):
    answer = operator.put(FLAVOR, {"pool_list": ["p1", "p2"], "capabilities": {}})

    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"] == FLAVOR
    assert operator.get(FLAVOR).json == {
        "name": "gold",
        "href": FLAVOR,
        "pool_list": ["p1", "p2"],
        "capabilities": CAPABILITIES,
    }
    assert flavors_of_pools(operator) == {"p1": "gold", "p2": "gold", "p3": None}


def test_the_capabilities_of_a_mongodb_are_in_the_protocols_order(operator, tmp_path):
    operator.put("/v2/pools/m", {"uri": servers.mongodb_uri(tmp_path), "weight": 1})
    operator.put(FLAVOR, {"pool_list": ["m"]})

    found = operator.get(FLAVOR).json["capabilities"]
    assert found == ["FIFO", "CLAIMS", "DURABILITY", "AOD", "HIGH_THROUGHPUT"]


def test_a_flavor_is_declared_anew(gold):
    assert gold.put(FLAVOR, {"pool_list": ["p3"]}).status_code == 201

    assert gold.get(FLAVOR).json["pool_list"] == ["p3"]
    assert flavors_of_pools(gold) == {"p1": None, "p2": None, "p3": "gold"}


@pytest.mark.parametrize("capabilities", [{}, ["FIFO"], "x", 5, None], ids=str)
def test_capabilities_that_are_given_are_ignored(operator, capabilities):
    assert operator.put(FLAVOR, {"pool_list": ["p1"], "capabilities": capabilities}).status_code == 201
    assert operator.get(FLAVOR).json["capabilities"] == CAPABILITIES


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"capabilities": {}},
        {"pool_list": 1},
        {"pool_list": 2**32 + 1},
        {"pool_list": "p1"},
        {"pool_list": None},
        {"pool_list": [1]},
        {"pool_list": [None]},
        {"pool_list": ["p1"], "x": 1},
        {"pool_group": "p1"},
        {"pool": "p1"},
        {"pool_list": ["p1"], "pool_group": "g"},
        [],
        1,
    ],
    ids=str,
)
def test_bad_documents_are_refused(operator, document):
    assert operator.put(FLAVOR, document).status_code == 400
    assert operator.get(FLAVOR).status_code == 404
    assert set(flavors_of_pools(operator).values()) == {None}


def test_a_flavor_without_pools(operator):
    answer = operator.put(FLAVOR, {"pool_list": []})

    assert (answer.status_code, answer.json) == (
        400,
        {"title": "Unable to create", "description": "Bad Request"},
    )


def test_a_flavor_with_a_pool_that_is_not_there(operator):
    answer = operator.put(FLAVOR, {"pool_list": ["p1", "nowhere"]})

    assert (answer.status_code, answer.json) == (
        400,
        {
            "title": "Unable to create",
            "description": "Flavor gold could not be created, error:Pool nowhere does not exist",
        },
    )
    assert operator.get(FLAVOR).status_code == 404
    assert set(flavors_of_pools(operator).values()) == {None}, "all or nothing"


def test_the_pools_of_a_flavor_can_do_the_same(operator, tmp_path):
    operator.put("/v2/pools/other", {"uri": servers.redis_uri(tmp_path), "weight": 1})

    answer = operator.put(FLAVOR, {"pool_list": ["p1", "other"]})

    assert answer.status_code == 400
    assert operator.get(FLAVOR).status_code == 404
    assert set(flavors_of_pools(operator).values()) == {None}


@pytest.mark.parametrize(("name", "status"), [("f" * 255, 201), ("f" * 256, 400), ("a b", 201)])
def test_names(operator, name, status):
    assert (
        operator.put(f"/v2/flavors/{name.replace(' ', '%20')}", {"pool_list": ["p1"]}).status_code == status
    )


def test_d3_a_pool_has_one_flavor(gold):
    """To put it into another is to take it out of the first."""
    gold.put("/v2/flavors/silver", {"pool_list": ["p1"]})

    assert gold.get(FLAVOR).json["pool_list"] == ["p2"]
    assert gold.get("/v2/flavors/silver").json["pool_list"] == ["p1"]


# --- show


def test_a_flavor_that_is_not_there(operator):
    assert_problem(operator.get(FLAVOR), 404, "Not found")
    assert_problem(operator.patch(FLAVOR, {"pool_list": ["p1"]}), 404, "Not found")


def test_a_flavor_belongs_to_a_project(gold):
    red = gold.of("red")

    assert red.get(FLAVOR).status_code == 404
    assert names(red.get("/v2/flavors")) == []
    assert red.delete(FLAVOR).status_code == 204
    assert gold.get(FLAVOR).json["pool_list"] == ["p1", "p2"]


def test_a_flavor_whose_pools_were_taken_away(gold):
    for name in ("p1", "p2"):
        gold.patch(f"/v2/pools/{name}", {"flavor": ""})

    assert gold.get(FLAVOR).json == {"name": "gold", "href": FLAVOR, "capabilities": []}
    assert gold.get("/v2/flavors").json["flavors"] == [{"name": "gold", "href": FLAVOR}]


# --- list


@pytest.fixture
def many(operator: Client, tmp_path: Path) -> Client:
    """Fifteen flavors 00 to 14, each with a pool of its own."""
    for number in range(15):
        pool = f"x{number:02}"
        operator.put(f"/v2/pools/{pool}", {"uri": f"sqlite:///{tmp_path}/{pool}.db", "weight": 1})
        assert operator.put(f"/v2/flavors/{number:02}", {"pool_list": [pool]}).status_code == 201
    return operator


def test_there_are_no_flavors(operator):
    answer = operator.get("/v2/flavors")

    assert (answer.status_code, answer.json) == (200, {"flavors": [], "links": []})


def test_flavors_are_listed_by_name(many):
    answer = many.get("/v2/flavors")

    assert names(answer) == [f"{number:02}" for number in range(10)]
    assert answer.json["flavors"][3] == {"name": "03", "href": "/v2/flavors/03", "pool_list": ["x03"]}


@pytest.mark.parametrize("limit", [1, 5, 15])
def test_a_listing_can_be_limited_and_detailed(many, limit):
    answer = many.get(f"/v2/flavors?limit={limit}&detailed=True")

    assert [flavor["capabilities"] for flavor in answer.json["flavors"]] == [CAPABILITIES] * limit
    query = parse_qs(urlsplit(next_link(answer)).query)
    assert query == {"limit": [str(limit)], "detailed": ["true"], "marker": [f"{limit - 1:02}"]}


def test_following_the_links_shows_every_flavor_once(many):
    found = [names(page) for page in pages(many, "/v2/flavors?limit=6")]

    assert [len(page) for page in found] == [6, 6, 3, 0]
    assert [name for page in found for name in page] == [f"{number:02}" for number in range(15)]


@pytest.mark.parametrize(("marker", "first"), [("03", "04"), ("3", None), ("zzz", None), ("", "00")])
def test_a_marker_is_a_name(many, marker, first):
    assert names(many.get(f"/v2/flavors?marker={marker}"))[:1] == ([] if first is None else [first])


@pytest.mark.parametrize("limit", ["0", "-1", "21"])
def test_a_limit_out_of_range(operator, limit):
    assert_problem(operator.get(f"/v2/flavors?limit={limit}"), 400, "Invalid API request")


@pytest.mark.parametrize("query", ["limit=x", "detailed=maybe"])
def test_a_parameter_of_the_wrong_type(operator, query):
    assert_problem(operator.get(f"/v2/flavors?{query}"), 400, "Invalid parameter")


# --- change


def test_a_flavor_gets_other_pools(gold):
    answer = gold.patch(FLAVOR, {"pool_list": ["p3", "p2"], "x": 1, "capabilities": 5, "pool_group": "g"})

    assert answer.status_code == 200
    expected = {"name": "gold", "href": FLAVOR, "pool_list": ["p2", "p3"], "capabilities": CAPABILITIES}
    assert answer.json == gold.get(FLAVOR).json == expected
    assert flavors_of_pools(gold) == {"p1": None, "p2": "gold", "p3": "gold"}


@pytest.mark.parametrize(
    "document",
    [{}, {"x": 1}, {"capabilities": []}, {"pool_list": []}, {"pool_list": 1}, {"pool_list": "p1"}, []],
    ids=str,
)
def test_bad_changes_are_refused(gold, document):
    assert gold.patch(FLAVOR, document).status_code == 400
    assert gold.patch("/v2/flavors/nowhere", document).status_code == 400, "this goes before 404"
    assert gold.get(FLAVOR).json["pool_list"] == ["p1", "p2"]


def test_a_change_to_a_pool_that_is_not_there(gold):
    answer = gold.patch(FLAVOR, {"pool_list": ["p3", "nowhere"]})

    assert_problem(answer, 400, "updatefail")
    assert "nowhere" in answer.json["description"]
    assert gold.get(FLAVOR).json["pool_list"] == ["p1", "p2"]
    assert_problem(gold.patch("/v2/flavors/other", {"pool_list": ["nowhere"]}), 404, "Not found")


# --- remove


def test_a_flavor_can_be_removed_again_and_again(gold):
    assert gold.delete(FLAVOR).status_code == 204
    assert gold.delete(FLAVOR).status_code == 204

    assert gold.get(FLAVOR).status_code == 404
    assert set(flavors_of_pools(gold).values()) == {None}


def test_queues_stay_where_they_are_when_their_flavor_goes(gold):
    gold.create_queue("q1", {"_flavor": "gold"})
    gold.post_bodies("a")
    pool = gold.service.queues.find(address_of(gold)).pool
    gold.delete(FLAVOR)
    gold.post_bodies("b")

    assert gold.listed() == ["a", "b"]
    assert gold.service.queues.find(address_of(gold)).pool == pool


def address_of(client: Client) -> Any:
    from queues.models import Address

    return Address(project=str(client.headers["X-Project-ID"]), queue="q1")


def test_a_flavor_that_another_project_has_too(gold):
    """They share the pools, which are no longer the flavor's once either is removed."""
    red = gold.of("red")
    red.put(FLAVOR, {"pool_list": ["p3"]})
    assert gold.get(FLAVOR).json["pool_list"] == ["p3"]

    red.delete(FLAVOR)

    assert "pool_list" not in gold.get(FLAVOR).json


# --- who may, and where

READS = [("GET", "/v2/flavors", NO_BODY), ("GET", FLAVOR, NO_BODY)]
WRITES = [
    ("PUT", FLAVOR, {"pool_list": ["p3"]}),
    ("PATCH", FLAVOR, {"pool_list": ["p3"]}),
    ("DELETE", FLAVOR, NO_BODY),
]


@pytest.mark.parametrize("roles", [None, "", "member", "reader"])
def test_everybody_may_read_and_operators_write(gold, roles):
    for method, path, document in READS:
        assert gold.request(method, path, document, headers={"X-Roles": roles}).status_code == 200
    for method, path, document in WRITES:
        answer = gold.request(method, path, document, headers={"X-Roles": roles})
        assert_problem(answer, 403, "Not authorized")
    assert gold.get(FLAVOR).json["pool_list"] == ["p1", "p2"]


@pytest.mark.parametrize(("admin", "pooling"), [(False, True), (True, False), (False, False)])
def test_flavors_are_not_served_unless_they_are_asked_for(open_api, admin, pooling):
    api = open_api(admin=admin, pooling=pooling).sending(**ADMIN)

    for method, path, document in READS + WRITES:
        answer = api.request(method, path, document)
        assert (answer.status_code, answer.json) == (404, {"title": "404 Not Found"})


def test_client_and_project_are_required(gold):
    for method, path, document in READS + WRITES:
        anybody = gold.sending(Client_ID=None)
        assert_problem(anybody.request(method, path, document), 400, "Missing header value")
        nowhere = gold.sending(X_Project_ID=None)
        assert_problem(nowhere.request(method, path, document), 400, "Project-Id Missing")


def test_the_home_document_tells_of_flavors(operator):
    resources = operator.get("/v2/").json["resources"]

    assert resources["rel/flavors"]["href-template"] == "/v2/flavors{?detailed,limit,marker}"
    assert resources["rel/flavors"]["href-vars"]["limit"] == "param/flavor_limit"
    assert resources["rel/flavor"]["href-template"] == "/v2/flavors/{flavor_name}"
    assert resources["rel/flavor"]["hints"]["allow"] == ["GET", "PUT", "PATCH", "DELETE"]


def test_without_the_store_of_the_records_nothing_can_be_told(gold, driver):
    driver.break_()

    for method, path, document in READS + WRITES:
        answer = gold.request(method, path, document)
        assert_problem(answer, 503, "Service temporarily unavailable")
