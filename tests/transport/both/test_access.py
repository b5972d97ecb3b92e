"""Who may do what, and what nobody may do to anybody else: roles, tokens, tenants, signatures."""

from __future__ import annotations

from typing import Any

import pytest

from queues.models import Role
from tests.transport.both.conftest import OpenSpeaker
from tests.transport.both.dialects import Speaker
from tests.transport.conftest import ONE_STORE, PROJECT
from transport.access import RULES
from transport.operations import OPERATIONS

pytestmark = ONE_STORE

ARGUMENTS: dict[str, dict[str, Any]] = {
    "queue_update": {"changes": []},
    "topic_update": {"changes": []},
    "message_post": {"messages": [{"body": 1}]},
    "message_get_many": {"message_ids": ["1"]},
    "message_delete_many": {"message_ids": ["1"]},
    "event_post": {"events": {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}},
    "subscription_create": {"subscriber": "http://hook.example.org/"},
    "subscription_update": {"ttl": 60},
    "subscription_confirm": {"confirmed": True},
    "subscription_replay": {"ids": ["1"]},
    "pool_create": {"uri": "memory:", "weight": 1},
    "pool_update": {"weight": 1},
    "flavor_create": {"pool_list": ["p1"]},
    "flavor_update": {"pool_list": ["p1"]},
}

NAMES = {
    "queue": ["queue_name"],
    "topic": ["queue_name"],
    "message": ["queue_name"],
    "event": ["queue_name"],
    "claim": ["queue_name"],
    "subscription": ["queue_name"],
    "pool": ["pool_name"],
    "flavor": ["flavor_name"],
}


def arguments(operation: str) -> dict[str, Any]:
    """Return arguments that an operation accepts."""
    kind = OPERATIONS[operation].arguments
    noun = operation.partition("_")[0]
    fields = {field for field in kind.__struct_fields__ if field.endswith(("_name", "_id"))}
    named = {name: "p1" if name in ("pool_name", "flavor_name") else "q1" for name in fields}
    if operation == "message_delete":
        named.pop("claim_id")
    assert operation.endswith("_list") or set(NAMES.get(noun, [])) <= fields
    return {**named, **ARGUMENTS.get(operation, {})}


def allowed(speaker: Speaker, operation: str) -> bool:
    """Whether somebody may do something, whatever comes of it."""
    return speaker.status(operation, **arguments(operation)) != 403


@pytest.fixture
def everything(open_speaker: OpenSpeaker) -> Speaker:
    """A client of a service that serves all operations."""
    return open_speaker(admin=True, pooling=True, signed_url={"secret_keys": ["a key of the tests"]})


@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_the_table_of_rules_says(everything: Speaker, role: Role) -> None:
    somebody = everything.saying(X_Roles=role.name.lower())
    may = {name for name in OPERATIONS if allowed(somebody, name)}
    expected = {
        name
        for name, operation in OPERATIONS.items()
        if operation.rule is None or RULES[operation.rule] <= role
    }

    # A pool that is the only one of its flavor is not removed by anybody, which is 403 too.
    assert may ^ expected <= {"pool_delete"}


@pytest.mark.parametrize(
    "rule", ["messages:create", "claims:create", "queues:get_all", "subscription:create"]
)
def test_a_rule_can_ask_for_another_role_and_concerns_nothing_else(
    open_speaker: OpenSpeaker, rule: str
) -> None:
    strict = open_speaker(access={rule: "admin"})
    for name, operation in OPERATIONS.items():
        if operation.rule in ("messages:create", "claims:create", "queues:get_all", "subscription:create"):
            assert allowed(strict, name) == (operation.rule != rule), name
            assert allowed(strict.saying(X_Roles="admin"), name), name


def test_who_is_refused_changes_nothing(me: Speaker) -> None:
    me.create("q1", colour="red")
    (id_,) = me.post("a", "b")[:1]
    held = me.claim(limit=1)
    before = (me.queues(), me.listed(include_claimed=True), me.counts(), me.subscriptions())
    reader = me.saying(X_Roles="reader")

    for name in OPERATIONS:
        if not name.startswith(("pool", "flavor", "check")) and not allowed(reader, name):
            named = {**arguments(name)}
            if "message_id" in named:
                named["message_id"] = id_
            if "claim_id" in named:
                named["claim_id"] = held.id
            assert reader.status(name, **named) == 403
    assert (me.queues(), me.listed(include_claimed=True), me.counts(), me.subscriptions()) == before


def test_a_token_gives_a_project_and_a_role(open_speaker: OpenSpeaker, clock) -> None:
    me = open_speaker(auth_strategy="token")
    tokens = me.service.tokens

    def with_token(role: Role, project: str = PROJECT, **terms: Any) -> Speaker:
        return me.saying(X_Auth_Token=tokens.create(project, role, **terms)[1]).of(project)

    member, reader = with_token(Role.MEMBER), with_token(Role.READER)
    stranger = with_token(Role.ADMIN, "red")
    member.post("a")

    assert reader.listed() == ["a"]
    assert reader.status("claim_create", queue_name="q1") == 403
    assert stranger.queues() == []
    assert stranger.listed() == []
    for nobody in (me, me.saying(X_Auth_Token="hermod_x_y"), me.saying(X_Roles="admin")):
        assert nobody.status("queue_list") in (401, 403)


def test_a_token_ends(open_speaker: OpenSpeaker, clock) -> None:
    me = open_speaker(auth_strategy="token")
    tokens = me.service.tokens
    short = me.saying(X_Auth_Token=tokens.create(PROJECT, Role.MEMBER, expires=clock() + 60_000)[1])
    found, secret = tokens.create(PROJECT, Role.MEMBER)
    revoked = me.saying(X_Auth_Token=secret)
    assert short.queues() == revoked.queues() == []

    tokens.revoke(found.id)
    clock.advance(1)
    assert revoked.status("queue_list") in (401, 403)
    assert short.status("queue_list") == 200
    clock.advance(59)
    assert short.status("queue_list") in (401, 403)


# --- tenants


def test_p8_the_same_names_in_two_projects_are_two_of_each(me: Speaker) -> None:
    red = me.of("red")
    for each, colour in ((me, "blue"), (red, "red")):
        each.create("q1", colour=colour)
        each.post(colour)
        each.subscribe()

    assert (me.listed(), red.listed()) == (["blue"], ["red"])
    assert red.get("queue_get", queue_name="q1") == {"colour": "red"}
    red.get("queue_purge", queue_name="q1")
    red.get("queue_delete", queue_name="q1")
    assert me.listed() == ["blue"]
    assert len(me.subscriptions()) == 1
    assert me.queues() == ["q1"]


def test_p8_a3_what_leaks_is_worth_nothing(me: Speaker) -> None:
    """Ids of messages, claims and subscriptions, tried by another project on a queue of the same name."""
    ids = me.post("claimed", "free")
    held = me.claim(limit=1)
    subscription = me.subscribe()
    thief = me.of("thief")
    thief.post("bait")

    known = [*ids, held.id, subscription, "q1", PROJECT]
    assert thief.get("message_get_many", queue_name="q1", message_ids=known) == []
    for id_ in known:
        assert thief.status("message_get", queue_name="q1", message_id=id_) == 404
        assert thief.status("claim_get", queue_name="q1", claim_id=id_) == 404
        assert thief.status("claim_update", queue_name="q1", claim_id=id_) == 404
        assert thief.status("claim_delete", queue_name="q1", claim_id=id_) == 204
        assert thief.status("subscription_get", queue_name="q1", subscription_id=id_) == 404
        assert thief.status("subscription_update", queue_name="q1", subscription_id=id_, ttl=60) == 404
        assert thief.status("subscription_delete", queue_name="q1", subscription_id=id_) == 204
        assert thief.status("message_delete", queue_name="q1", message_id=id_) == 204
        assert thief.page(marker=id_) == []
    assert thief.status("message_delete_many", queue_name="q1", message_ids=known) == 204

    assert [each["body"] for each in me.get("claim_get", queue_name="q1", claim_id=held.id)["messages"]] == [
        "claimed"
    ]
    assert me.listed() == ["free"]
    assert [each["id"] for each in me.subscriptions()] == [subscription]
    assert thief.listed() == ["bait"]


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a.b", "c"), ("a", "b.c")), (("a", "b"), ("a.b", "b")), (("p", "queues_set"), ("p.queues_set", "p"))],
)
def test_p8_a4_no_names_run_into_each_other(
    me: Speaker, one: tuple[str, str], other: tuple[str, str]
) -> None:
    for project, queue in (one, other):
        me.of(project).post(f"{project}/{queue}", queue=queue)

    for project, queue in (one, other):
        assert me.of(project).listed(queue) == [f"{project}/{queue}"]
        assert me.of(project).queues() == [queue]


@pytest.mark.parametrize("text", ["x|", ".*", "^", "(", "[", "$", "%", "_", "\\", "' OR 1=1", "{}", "\x00"])
def test_p8_a13_no_parameter_reaches_beyond_the_project(me: Speaker, text: str) -> None:
    for project in ("aaa", "zzz", PROJECT + "x"):
        me.of(project).create("theirs", secret="theirs")
    me.create("mine")

    assert me.queues(name=text) == (["mine"] if text in "mine" else [])
    assert "theirs" not in me.queues(marker=text)
    assert me.queues(filters={"secret": text}) == []
    assert me.page(marker=text) == []


@pytest.mark.parametrize("project", ["with some blanks", "x" * 256, "a.b/c?d=e,{f}", "'; --", "0"])
def test_a_project_may_be_called_almost_anything(me: Speaker, project: str) -> None:
    somebody = me.of(project)
    somebody.post("a")

    assert somebody.listed() == ["a"]
    assert me.listed() == []


def test_a_project_has_at_most_256_characters(me: Speaker) -> None:
    assert me.of("x" * 257).status("queue_create", queue_name="q1") == 400
    assert me.of("x" * 257).status("message_post", queue_name="q1", messages=[{"body": 1}]) == 400


@pytest.mark.parametrize("client_id", ["", "0xdeadbeef", "textid", "6d0c2f0e-7a0b-4a55-9c0e-2f0d6a3b9f1"])
def test_a_client_is_named_by_a_uuid(me: Speaker, client_id: str) -> None:
    somebody = me.saying(Client_ID=client_id)

    assert somebody.status("message_post", queue_name="q1", messages=[{"body": 1}]) == 400
    assert somebody.status("queue_list") == 400
    assert me.queues() == []


def test_c10_or_by_any_text_where_that_will_do(open_speaker: OpenSpeaker) -> None:
    me = open_speaker(wire={"client_id_uuid_safe": "off"})
    me.saying(Client_ID="somebody-1").post("one")
    me.saying(Client_ID="somebody-2").post("two")

    assert me.saying(Client_ID="somebody-1").listed(echo=False) == ["two"]
    for text in ("x" * 9, "x" * 37):
        assert me.saying(Client_ID=text).status("queue_list") == 400
