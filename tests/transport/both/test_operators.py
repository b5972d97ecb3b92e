"""What operators do: pools, flavors, drains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE

pytestmark = ONE_STORE

WRONG_POOLS: list[dict[str, Any]] = [
    {"uri": 5},
    {"uri": "fake://x"},
    {"weight": "heavy"},
    {"weight": -1},
    {"colour": "red"},
]
WRONG_FLAVORS: list[dict[str, Any]] = [
    {},
    {"pool_list": []},
    {"pool_list": ["p9"]},
    {"pool_list": "p1"},
    {"pool_list": [5]},
]


@pytest.fixture
def operator(open_speaker: OpenSpeaker) -> Speaker:
    """A client with all rights, of a service with pools; there are none yet."""
    found: Speaker = open_speaker(admin=True, pooling=True)
    return found.saying(X_Roles="admin")


def pool(operator: Speaker, name: str, folder: Path, **terms: Any) -> int:
    uri = f"sqlite:///{folder}/{name}.db"
    return operator.status("pool_create", pool_name=name, **{"uri": uri, "weight": 10, **terms})


def test_pools_are_managed(operator: Speaker, tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        assert pool(operator, name, tmp_path, options={"timeout": 2}) == 201
    shown = {
        "href": "/v2/pools/p1",
        "name": "p1",
        "uri": f"sqlite:///{tmp_path}/p1.db",
        "weight": 10,
        "flavor": None,
    }

    assert operator.get("pool_get", pool_name="p1") == shown
    assert operator.get("pool_get", pool_name="p1", detailed=True) == {**shown, "options": {"timeout": 2}}
    assert operator.get("pool_list", limit=1) == [shown]
    assert [each["name"] for each in operator.get("pool_list", marker="p1")] == ["p2"]
    assert operator.get("pool_update", pool_name="p1", weight=5)["weight"] == 5
    assert pool(operator, "p3", tmp_path, uri=f"sqlite:///{tmp_path}/p1.db") == 409
    for wrong in WRONG_POOLS:
        assert pool(operator, "p3", tmp_path, **wrong) == 400, wrong
    assert operator.status("pool_get", pool_name="p3") == 404
    assert operator.status("pool_update", pool_name="p3", weight=5) == 404
    assert operator.status("pool_list", limit=21) == 400


def test_a_pool_is_drained_before_it_is_removed(operator: Speaker, tmp_path: Path) -> None:
    pool(operator, "p1", tmp_path)
    operator.post("a")
    assert operator.status("pool_delete", pool_name="p1") == 403
    pool(operator, "p2", tmp_path)

    assert operator.ask("pool_drain", pool_name="p1").status == 202
    drain = operator.get("pool_drain_get", pool_name="p1")
    assert (drain["pool"], drain["active"], drain["queues_left"]) == ("p1", True, 1)
    assert operator.status("pool_drain_stop", pool_name="p1") == 204
    assert operator.status("pool_drain", pool_name="p9") == 404
    assert operator.listed() == ["a"]
    assert operator.status("pool_delete", pool_name="p9") == 204


def test_flavors_are_managed(operator: Speaker, tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        pool(operator, name, tmp_path)
    assert operator.status("flavor_create", flavor_name="gold", pool_list=["p1"]) == 201

    shown = operator.get("flavor_get", flavor_name="gold")
    assert (shown["name"], shown["pool_list"]) == ("gold", ["p1"])
    (listed,) = operator.get("flavor_list", detailed=True)
    assert {**shown, **listed} == shown
    assert operator.get("flavor_update", flavor_name="gold", pool_list=["p2"])["pool_list"] == ["p2"]
    assert operator.saying(X_Roles="member").status("flavor_get", flavor_name="gold") == 200
    assert operator.saying(X_Roles="member").status("flavor_delete", flavor_name="gold") == 403
    for wrong in WRONG_FLAVORS:
        assert operator.status("flavor_create", flavor_name="lead", **wrong) == 400, wrong
    assert operator.status("flavor_get", flavor_name="lead") == 404
    for _ in range(2):
        assert operator.status("flavor_delete", flavor_name="gold") == 204


@pytest.mark.parametrize("setting", ["admin", "pooling"])
def test_where_it_is_not_served_nothing_is_known_of_it(open_speaker: OpenSpeaker, setting: str) -> None:
    served = {"admin": True, "pooling": True, setting: False}
    somebody = open_speaker(**served).saying(X_Roles="admin")

    assert somebody.status("pool_list") in (400, 404)
    assert somebody.status("flavor_list") in (400, 404)
    assert somebody.status("check_node_health") in ((400, 404) if setting == "admin" else (200,))
