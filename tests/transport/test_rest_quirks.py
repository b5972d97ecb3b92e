"""Quirks of the protocol's first implementation that clients would meet, and here do not.

Most of them have their tests beside the behaviour that they belong to, named after their
numbers; `tests/test_quirks_covered.py` sees to it that none is without one.
"""

from __future__ import annotations

import ast
import hmac
import os
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from queues.models import Address, NewMessage, Role
from tests.transport.conftest import (
    DEFAULTS,
    ONE_STORE,
    PROJECT,
    Client,
    bodies_of,
    next_link,
    pages,
)

ROOT = Path(__file__).parents[2]
MESSAGES = "/v2/queues/q1/messages"
KEY = "k1:" + "A" * 43 + "="


def test_a1_a2_nobody_becomes_an_operator_by_what_a_header_says(open_api) -> None:
    api = open_api(auth_strategy="token", admin=True, signed_url={"secret_keys": ["a key of the tests"]})
    owner = api.sending(X_Auth_Token=api.service.tokens.create(PROJECT, Role.MEMBER, expires=None)[1])
    shown = owner.post("/v2/queues/q1/share", {"methods": ["GET"]}).json
    signed = {
        "URL-Signature": shown["signature"],
        "URL-Expires": shown["expires"],
        "URL-Methods": "GET",
        "URL-Paths": MESSAGES,
        "X-Project-ID": PROJECT,
    }
    claims_to_be = {"EXTRA-SPEC": "messagecode:1", "X-Roles": "admin", "X-Is-Admin-Project": "true"}

    for identity in ({}, {"X-Project-ID": PROJECT}, {"X-Auth-Token": "hermod_x_y"}):
        assert api.get("/v2/queues", headers={**claims_to_be, **identity}).status_code == 401
    assert api.get(MESSAGES, headers={**signed, **claims_to_be}).status_code == 200
    assert api.get("/v2/health", headers={**signed, **claims_to_be}).status_code == 404
    assert api.delete(f"{MESSAGES}?pop=1", headers={**signed, **claims_to_be}).status_code == 404


def test_a3_ids_that_leak_are_worth_nothing(api: Client) -> None:
    """What a tenant may know of another: hrefs with the ids of messages and claims."""
    ids = api.post_bodies("claimed", "free")
    claim = api.claim(limit=1)
    thief = api.of("thief")
    thief.post_bodies("bait")
    names = ",".join([*ids, claim.id, "q1", PROJECT, f"{PROJECT}.q1"])

    assert thief.get(f"{MESSAGES}?ids={names}").status_code == 404
    assert thief.delete(f"{MESSAGES}?ids={names}").status_code == 204
    assert thief.delete(f"{MESSAGES}?ids={names}&claim_ids={claim.id}").status_code == 204
    assert thief.delete(claim.path).status_code == 204
    assert thief.delete(claim.delete_path()).status_code == 204

    assert [message["id"] for message in api.get(claim.path).json["messages"]] == [ids[0]]
    assert api.listed() == ["free"]
    assert api.stats() == (1, 1)


@ONE_STORE
def test_a8_signatures_are_compared_in_constant_time(open_api, monkeypatch) -> None:
    owner = open_api(signed_url={"secret_keys": [name * 6 for name in ("new", "old", "older")]})
    compared: list[Any] = []
    compare = hmac.compare_digest

    def noted(one: Any, other: Any) -> bool:
        compared.append(other)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    guess = "f" * 64
    headers = {"URL-Signature": guess, "URL-Expires": "2026-11-21T00:00:00", "URL-Methods": "GET"}
    answer = owner.get(MESSAGES, headers={**headers, "URL-Paths": MESSAGES})

    assert answer.status_code == 404
    assert compared == [guess.encode()] * 3, "with every key, and never with =="


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("sealed", [False, True])
def test_a11_nothing_that_is_stored_is_ever_executed(open_api, driver, clock, tmp_path, sealed) -> None:
    """Somebody who can write to the store puts a pickle there."""
    api = open_api(encryption={"keys": [KEY]})
    api.create_queue("q1", {"_enable_encrypt_messages": sealed})
    trace = tmp_path / "it went off"
    bomb = pickle.dumps(Bomb(trace))
    batch = [NewMessage(body=bomb, ttl=600, sealed=sealed)]
    (id_,) = driver.messages.post(Address(project=PROJECT, queue="q1"), batch, now=clock(), create=True).ids

    for path in (MESSAGES, f"{MESSAGES}/{id_}", f"{MESSAGES}?ids={id_}", "/v2/queues/q1/stats"):
        api.get(path)
    api.post("/v2/queues/q1/claims", {})
    api.delete(f"{MESSAGES}?pop=1")

    assert not trace.exists()
    pickle.loads(bomb)
    assert trace.exists()


def test_a11_no_code_can_unpickle() -> None:
    dangerous = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
    for package in ("queues", "storage", "transport", "notifiers"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                imported = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                assert not dangerous & {name.partition(".")[0] for name in imported}, path


# --- what stores did, as clients met it


def test_b2_b3_after_a_claim_has_expired_everything_is_answered(api: Client, clock) -> None:
    api.post_bodies("a", "b")
    claim = api.claim(ttl=60, grace=60)
    clock.advance(61)

    assert api.get(claim.path).status_code == 404
    assert api.patch(claim.path, {"ttl": 300}).status_code == 404
    assert api.delete(claim.path).status_code == 204
    assert api.get("/v2/queues/q1/stats").status_code == 200
    assert api.stats() == (2, 0)
    assert [message["body"] for message in api.claim().messages] == ["a", "b"]


def test_b5_c11_paging_by_link_or_by_last_id_ends(api: Client) -> None:
    """Clients follow the link, or, as openstacksdk does, take the last id that they saw for a marker."""
    ids = api.post_bodies(*range(25))
    path = f"{MESSAGES}?echo=true&limit=1"
    followed = islice(pages(api, path), 30)  # it might go on for ever
    by_link = [message["id"] for page in followed for message in page.json["messages"]]
    by_id: list[str] = []
    while page := api.get(f"{MESSAGES}?echo=true&limit=10" + (f"&marker={by_id[-1]}" if by_id else "")).json[
        "messages"
    ]:
        assert len(by_id) < 25, "the same page again"
        by_id += [message["id"] for message in page]

    assert by_link == by_id == ids


def test_b5_a_deleted_marker_goes_on_where_it_was(api: Client) -> None:
    api.post_bodies(*range(6))
    page = api.get(f"{MESSAGES}?echo=true&limit=3")
    for message in page.json["messages"]:
        api.delete(message["href"])

    assert bodies_of(api.get(next_link(page))) == [3, 4, 5]


def test_b6_a_page_is_full_if_there_is_enough_to_show(api: Client, clock) -> None:
    api.post_bodies(*["mine"] * 12)
    api.post_bodies("expired", ttl=60)
    api.another().post_bodies(*["claimed"] * 12)
    api.delete(f"{MESSAGES}?pop=12")
    api.claim(limit=13)
    api.post_bodies(*["mine"] * 12)
    api.another().post_bodies("theirs", "theirs too")
    clock.advance(60)

    assert bodies_of(api.get(f"{MESSAGES}?limit=2")) == ["theirs", "theirs too"]


def test_b7_claimed_messages_are_listed_without_a_marker(api: Client) -> None:
    api.post_bodies("a", "b")
    api.claim()

    assert bodies_of(api.get(f"{MESSAGES}?include_claimed=true&echo=true")) == ["a", "b"]


def test_b8_age_and_ttl_tell_when_a_claimed_message_ends(api: Client, clock) -> None:
    (id_,) = api.post_bodies("a", ttl=60)
    clock.advance(30)
    claim = api.claim(ttl=300, grace=100)
    seen = api.get(f"{MESSAGES}/{id_}").json
    left = seen["ttl"] - seen["age"]

    assert left == 400
    clock.advance(300)
    assert api.get(claim.path).status_code == 404
    assert api.get(f"{MESSAGES}/{id_}").status_code == 200
    clock.advance(100)
    assert api.get(f"{MESSAGES}/{id_}").status_code == 404
    assert api.stats() == (0, 0)


def test_b10_c4_a_pop_is_in_order_and_counts_as_no_claim(api: Client) -> None:
    api.create_queue("q1", {"_max_claim_count": 1, "_dead_letter_queue": "dead"})
    api.post_bodies("late", delay=60)
    api.post_bodies(*range(5))

    assert bodies_of(api.delete(f"{MESSAGES}?pop=2")) == [0, 1]
    assert bodies_of(api.delete(f"{MESSAGES}?pop=20")) == [2, 3, 4]
    assert api.listed("dead") == []


def test_b14_d8_a_queue_that_is_made_anew_is_empty(api: Client) -> None:
    api.create_queue("q1", {"colour": "red"})
    ids = api.post_bodies("old")
    claim = api.claim()
    page = api.get(f"{MESSAGES}?echo=true&include_claimed=true")
    api.delete("/v2/queues/q1")
    api.post_bodies("new")

    assert api.metadata() == {}
    assert api.get(claim.path).status_code == 404
    assert api.get(f"{MESSAGES}/{ids[0]}").status_code == 404
    assert api.delete(f"{MESSAGES}/{ids[0]}?claim_id={claim.id}").status_code == 204
    assert bodies_of(api.get(next_link(page))) == []
    assert api.listed() == ["new"]
    assert api.stats() == (1, 0)


def test_b17_queues_are_found_by_name_and_metadata(api: Client) -> None:
    for name, colour in (("one", "red"), ("two", "blue"), ("three", "red")):
        api.create_queue(name, {"colour": colour})

    def found(query: str) -> list[str]:
        return [queue["name"] for queue in api.get(f"/v2/queues?{query}").json["queues"]]

    assert found("name=o") == ["one", "two"]
    assert found("colour=red") == ["one", "three"]
    assert found("colour=red&name=one") == ["one"]


def test_b17_there_are_topics(api: Client) -> None:
    assert api.put("/v2/topics/t1", {"colour": "red"}).status_code == 201
    assert api.get("/v2/topics/t1").json["colour"] == "red"
    assert [topic["name"] for topic in api.get("/v2/topics?colour=red").json["topics"]] == ["t1"]
    assert api.delete("/v2/topics/t1").status_code == 204


def test_c3_dead_letters_that_are_unset_or_have_no_queue_yet_are_no_error(api: Client) -> None:
    api.create_queue("q1", {"_max_claim_count": 1, "_dead_letter_queue": "dead"})
    api.create_queue("q2")
    shown = api.get("/v2/queues/q2").json
    assert {key: shown[key] for key in DEFAULTS} == DEFAULTS
    for queue in ("q1", "q2"):
        api.post_bodies("a", queue=queue)
        api.delete(api.claim(queue).path)
    api.post_bodies("b")

    assert [message["body"] for message in api.claim().messages] == ["b"]
    assert api.listed("dead") == ["a"]
    assert [message["body"] for message in api.claim("dead").messages] == ["a"]
    assert [message["body"] for message in api.claim("q2").messages] == ["a"]


def test_c7_what_has_expired_is_not_shown(api: Client, clock) -> None:
    (id_,) = api.post_bodies("a", ttl=60)
    clock.advance(60)

    assert api.get(f"{MESSAGES}/{id_}").status_code == 404
    assert api.get(f"{MESSAGES}?ids={id_}").status_code == 404
    assert bodies_of(api.delete(f"{MESSAGES}?pop=1")) == []
    assert api.post("/v2/queues/q1/claims", {}).status_code == 204
    assert api.stats() == (0, 0)


@pytest.mark.parametrize("client_id", ["not-a-uuid", "the \xf6ther one"])
def test_c10_a_client_id_need_not_be_a_uuid_where_that_is_off(open_api, client_id) -> None:
    api = open_api(wire={"client_id_uuid_safe": "off"})
    me, you = api.sending(Client_ID=client_id), api.sending(Client_ID="somebody else")

    me.post_bodies("mine")
    you.post_bodies("yours")

    assert bodies_of(me.get(MESSAGES)) == ["yours"]
    assert bodies_of(you.get(MESSAGES)) == ["mine"]


def test_d9_of_two_changes_of_metadata_none_is_lost(api: Client, driver, monkeypatch) -> None:
    """Somebody changes the metadata when somebody else has read them and not yet written."""
    api.create_queue("q1")
    waiting = ["second", "third"]

    def interrupt(method: str) -> None:
        if method == "replace" and waiting:
            key = waiting.pop()
            assert api.change("q1", {"op": "add", "path": f"/metadata/{key}", "value": 1}).status_code == 200

    monkeypatch.setattr(driver.records, "_check", interrupt)
    answer = api.change("q1", {"op": "add", "path": "/metadata/first", "value": 1})

    assert answer.status_code == 200
    assert api.metadata() == {"first": 1, "second": 1, "third": 1}


def test_a13_no_parameter_reaches_beyond_the_project(open_api) -> None:
    """Every parameter of a list, with texts that mean something to somebody's patterns or queries."""
    api = open_api()
    for number, project in enumerate(("aaa", "zzz", PROJECT + "x")):
        api.of(project).create_queue(f"theirs{number}", {"secret": "theirs"})
    api.create_queue("mine")
    texts = [
        "x%7C",
        "%7C",
        ".*",
        "%5E",
        "(",
        "[",
        "%24",
        "*",
        "%25",
        "_",
        "'%20OR%20'1'='1",
        "%5C",
        "{}",
        "%00",
    ]
    for text in texts:
        for parameter in ("name", "marker", "secret", "%24where", "project", "_id", "scope"):
            answer = api.get(f"/v2/queues?{parameter}={text}&detailed=true&limit=20")
            assert "theirs" not in answer.text
            assert parameter != "name" or answer.json["queues"] == [], "a text was taken for a pattern"
            assert answer.status_code in (200, 400)
