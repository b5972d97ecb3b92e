"""Queues whose messages are encrypted at rest. Section 12.10; quirks H1 to H4."""

import base64
import hashlib
import json
import pickle
from typing import Any

import pytest

from queues.models import Address, Message, NewMessage
from tests.transport.conftest import ONE_STORE, PROJECT, WITHOUT_POOLS, Client, assert_problem, bodies_of

MESSAGES = "/v2/queues/q1/messages"
ENCRYPTED = {"_enable_encrypt_messages": True}
SECRET = "attack at dawn"
BODIES = [SECRET, {"plan": SECRET, "é": [1, None]}, 239, None, "", False, [], 2**63 - 1]


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}"


@pytest.fixture
def api(open_api):
    """A client of a service with a key, and a queue that is encrypted."""
    api = open_api(encryption={"keys": [key("k1")]}, wire={"enable_checksum": True})
    api.create_queue("q1", ENCRYPTED)
    return api


@pytest.fixture
def with_keys(open_api):
    """Build a client of a service over the same store with other keys."""
    return lambda *names: open_api(encryption={"keys": [key(name) for name in names]}, cache={"queue_age": 0})


@pytest.fixture
def stored(driver, clock):
    """Return the messages that a store was given, as it was given them."""

    def read(ids, queue: str = "q1", project: str = PROJECT) -> list[Message]:
        return list(driver.messages.get(Address(project=project, queue=queue), ids, now=clock()))

    return read


def store_sealed(api: Client, driver, clock, body: bytes, project: str = PROJECT) -> str:
    """Put something into the store that says it is encrypted."""
    address = Address(project=project, queue="q1")
    message = NewMessage(body=body, ttl=3600, sealed=True)
    [id_] = driver.messages.post(address, [message], now=clock(), create=True).ids
    return str(id_)


def every_view(api: Client, id_: str) -> list[dict[str, Any]]:
    """Show a message in every way there is; in the end it is gone."""
    views: list[dict[str, Any]] = [
        api.get(f"{MESSAGES}/{id_}").json,
        *api.get(f"{MESSAGES}?ids={id_}").json["messages"],
        *api.get(f"{MESSAGES}?echo=true").json["messages"],
    ]
    claim = api.claim()
    views += [*claim.messages, *api.get(claim.path).json["messages"]]
    views += api.get(f"{MESSAGES}?echo=true&include_claimed=true").json["messages"]
    api.delete(claim.path)
    views += api.delete(f"{MESSAGES}?pop=1").json["messages"]
    return views


# --- clients do not notice


@pytest.mark.parametrize("body", BODIES)
def test_h1_clients_see_plain_bodies_everywhere(api, body):
    [id_] = api.post_bodies(body)

    assert [view["body"] for view in every_view(api, id_)] == [body] * 7


def test_h1_stats_show_nothing_of_a_message(api):
    api.post_bodies(SECRET)

    messages = api.get("/v2/queues/q1/stats").json["messages"]

    assert set(messages["oldest"]) == set(messages["newest"]) == {"href", "age", "created"}


def test_h1_dead_letters_are_plain(api, clock):
    """Whether the dead-letter queue is encrypted or not."""
    api.change(
        "q1",
        {"op": "add", "path": "/metadata/_max_claim_count", "value": 1},
        {"op": "add", "path": "/metadata/_dead_letter_queue", "value": "dead"},
    )
    api.post_bodies(SECRET)
    api.delete(api.claim().path)
    assert api.post("/v2/queues/q1/claims").status_code == 204

    assert api.listed("dead") == [SECRET]
    assert [message["body"] for message in api.claim("dead").messages] == [SECRET]


def test_h4_a_checksum_is_of_the_plain_body(api):
    [id_] = api.post_bodies({"plan": SECRET})

    expected = "MD5:" + hashlib.md5(json.dumps({"plan": SECRET}).encode()).hexdigest()
    assert [view["checksum"] for view in every_view(api, id_)] == [expected] * 7


def test_a_repeated_post_is_recognised_though_it_is_encrypted_anew(api):
    twice = [
        api.post(MESSAGES, {"messages": [{"body": SECRET}]}, headers={"Idempotency-Key": "k"}).json
        for _ in range(2)
    ]

    assert twice[0] == twice[1]
    assert api.listed() == [SECRET]


# --- the store does not see anything


@WITHOUT_POOLS
def test_the_store_is_given_nothing_to_read(api, stored):
    ids = api.post_bodies(SECRET, {"plan": SECRET}, SECRET)

    messages = stored(ids)

    assert all(message.sealed for message in messages)
    assert not any(SECRET.encode() in message.body for message in messages)
    assert messages[0].body != messages[2].body


@WITHOUT_POOLS
def test_h2_what_is_stored_is_no_pickle(api, stored):
    [id_] = api.post_bodies({"plan": SECRET})

    [message] = stored([id_])

    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError)):
        pickle.loads(message.body)


@WITHOUT_POOLS
def test_queues_that_do_not_ask_for_it_are_not_encrypted(api, stored):
    ids = api.post_bodies(SECRET, queue="q2")

    [message] = stored(ids, "q2")

    assert (message.sealed, message.body) == (False, json.dumps(SECRET).encode())


def test_logs_do_not_tell_what_is_encrypted(api, driver, clock, logged):
    api.post_bodies(SECRET)
    store_sealed(api, driver, clock, b"\x01\x02k1" + b"x" * 60)
    api.get(f"{MESSAGES}?echo=true")

    assert SECRET not in logged()


# --- the attribute is changed


@WITHOUT_POOLS
def test_h2_each_message_stays_as_it_was_posted(api, stored):
    def switch(value: object) -> None:
        answer = api.change("q1", {"op": "add", "path": "/metadata/_enable_encrypt_messages", "value": value})
        assert answer.status_code == 200

    ids = api.post_bodies("encrypted")
    switch(value=False)
    ids += api.post_bodies("plain")
    switch(value=True)
    ids += api.post_bodies("encrypted again")

    assert [message.sealed for message in stored(ids)] == [True, False, True]
    assert api.listed() == ["encrypted", "plain", "encrypted again"]
    assert bodies_of(api.delete(f"{MESSAGES}?pop=3")) == ["encrypted", "plain", "encrypted again"]


@WITHOUT_POOLS
def test_h2_a_body_that_looks_encrypted_is_just_a_body(api, stored):
    sealed = api.post_bodies(SECRET)
    looks_encrypted = stored(sealed)[0].body.decode("latin-1")
    pickled = pickle.dumps({"plan": SECRET}).decode("latin-1")

    api.post_bodies(looks_encrypted, pickled, queue="q2")
    api.post_bodies(looks_encrypted, pickled)

    assert api.listed("q2") == [looks_encrypted, pickled]
    assert api.listed("q1") == [SECRET, looks_encrypted, pickled]


# --- keys


def test_h3_keys_can_be_changed_one_after_the_other(api, with_keys, stored):
    [old] = api.post_bodies("old")
    rotating, rotated = with_keys("k2", "k1"), with_keys("k2")
    assert rotating.listed() == ["old"]

    [new] = rotating.post_bodies("new")

    assert rotating.listed() == ["old", "new"]
    assert rotated.get(f"{MESSAGES}/{new}").json["body"] == "new"
    assert_problem(rotated.get(f"{MESSAGES}/{old}"), 503, "Service temporarily unavailable")
    assert all(message.sealed for message in stored([old, new]))


@ONE_STORE
@pytest.mark.parametrize("change", ["body", "nonce", "header", "cut", "empty", "foreign key"])
def test_h3_what_was_changed_in_the_store_is_not_shown(api, driver, clock, stored, change):
    [id_] = api.post_bodies(SECRET)
    body = bytearray(stored([id_])[0].body)
    if change == "body":
        body[-20] ^= 1
    elif change == "nonce":
        body[6] ^= 1
    elif change == "header":
        body[0] ^= 1
    elif change == "cut":
        del body[-1:]
    elif change == "empty":
        body.clear()
    else:
        body[2:4] = b"k9"

    changed = store_sealed(api, driver, clock, bytes(body))

    assert_problem(api.get(f"{MESSAGES}/{changed}"), 503, "Service temporarily unavailable")


@WITHOUT_POOLS
def test_h3_what_was_encrypted_for_one_project_cannot_be_read_by_another(api, driver, clock, stored):
    [id_] = api.post_bodies(SECRET)

    carried = store_sealed(api, driver, clock, stored([id_])[0].body, project="red")

    assert api.of("red").get(f"{MESSAGES}/{carried}").status_code == 503


def test_h3_without_a_key_no_queue_can_ask_for_encryption(open_api):
    keyless = open_api()

    assert_problem(keyless.put("/v2/queues/q1", ENCRYPTED), 400, "Invalid API request")
    keyless.create_queue("q1")
    change = {"op": "add", "path": "/metadata/_enable_encrypt_messages", "value": True}
    assert_problem(keyless.change("q1", change), 400, "Invalid request body")
    assert keyless.queue_names() == ["q1"]


def test_h3_a_service_that_has_lost_its_keys_takes_no_messages_for_the_queue(api, with_keys):
    api.post_bodies(SECRET)
    keyless = with_keys()

    answer = keyless.post(MESSAGES, {"messages": [{"body": SECRET}]})

    assert_problem(answer, 503, "Service temporarily unavailable")
    assert api.stats() == (1, 0)
    assert keyless.get("/v2/queues/q1").json["_enable_encrypt_messages"] is True
    assert keyless.post_bodies("plain", queue="q2")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v2/queues/q1/claims"), ("DELETE", f"{MESSAGES}?pop=1")]
)
def test_p2_a_message_that_cannot_be_opened_is_not_lost(api, with_keys, clock, method, path):
    """A service without the key must not consume what it cannot show."""
    api.post_bodies(SECRET)

    assert with_keys().request(method, path).status_code == 503

    clock.advance(400)
    assert api.listed() == [SECRET]
