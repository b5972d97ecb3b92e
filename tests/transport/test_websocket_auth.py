"""Who speaks over a connection, and what for. Section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from queues.models import Role
from tests.transport.conftest import ANOTHER_CLIENT, ONE_STORE, PROJECT, BreakableDriver
from tests.transport.sockets import ABSENT, ENCODINGS, Socket, Told, check_reply, request, written
from tests.transport.test_websocket_actions import CONTRACT, NOT_VALID
from transport.access import RULES
from transport.websocket.actions import actions
from transport.websocket.session import CONNECTION_ACTIONS

pytestmark = ONE_STORE

NOT_AUTHENTIFIED = Told(403, {"error": "Not authentified."})
AUTHENTIFIED = Told(200, {"message": "Authentified."})
FAILED = Told(401, {"error": "Authentication failed."})
MESSAGES = "/v2/queues/q1/messages"


@pytest.fixture
def guarded(open_socket) -> Socket:
    """A client of a service that demands tokens; it has none."""
    socket: Socket = open_socket(auth_strategy="token", signed_url={"secret_keys": ["a key of the tests"]})
    return socket


def token(socket: Socket, role: Role = Role.MEMBER, project: str = PROJECT, **terms: Any) -> str:
    return socket.service.tokens.create(project, role, **terms)[1]


def authenticate(socket: Socket, secret: Any = ABSENT, **named: Any) -> Told:
    return socket.call("authenticate", X_Auth_Token=secret, **named)


def member(socket: Socket, role: Role = Role.MEMBER, **terms: Any) -> Socket:
    """Let a client authenticate."""
    assert authenticate(socket, token(socket, role, **terms)) == AUTHENTIFIED
    return socket


def during(driver: BreakableDriver, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Told]) -> list[Told]:
    """Do something while the next token is fetched; return what came of it."""
    told: list[Told] = []
    begun: list[str] = []

    def interrupt(method: str) -> None:
        if method == "fetch" and not begun:
            begun.append(method)
            told.append(act())

    monkeypatch.setattr(driver.records, "_check", interrupt)
    return told


# --- without a strategy


@pytest.mark.parametrize(
    "headers",
    [ABSENT, None, {}, {"X-Project-ID": PROJECT, "X-Auth-Token": "whatever"}, {"X-Auth-Token": None}],
)
def test_g2_without_tokens_everybody_may_authenticate(socket: Socket, headers: Any) -> None:
    reply = socket.send(written(request("authenticate", headers=headers), socket.encoding))

    assert reply == {
        "request": {"action": "authenticate", "body": {}, "headers": {}, "api": "v2"},
        "body": {"message": "Authentified."},
        "headers": {"status": 200},
    }
    assert socket.do("queue_list").status == 200


def test_without_tokens_signatures_are_ignored(socket: Socket) -> None:
    signed = {"URL-Signature": "f" * 64, "URL-Expires": "never", "URL-Methods": 5, "URL-Paths": ["/"]}

    assert socket.call("message_list", {"queue_name": "q1"}, **signed) == (200, {"messages": []})


# --- tokens


def test_until_somebody_has_authenticated_nothing_else_is_answered(guarded: Socket) -> None:
    for name in (*actions(admin=False, pooling=False), "subscription_resume"):
        body = {"subscription_id": "1", "sequence": 0, **GOOD.get(name, {"queue_name": "q1"})}
        assert guarded.call(name, body) == NOT_AUTHENTIFIED, name
        assert guarded.call(name, body, X_Auth_Token=token(guarded)) == NOT_AUTHENTIFIED, "in the wrong place"


GOOD: Mapping[str, Any] = {
    **{name: body for name, body in CONTRACT.items() if body is not ABSENT},
    **{f"topic_{verb}": {"queue_name": "t1"} for verb in ("create", "get", "delete")},
    "queue_update": {"queue_name": "q1", "changes": []},
    "topic_update": {"queue_name": "t1", "changes": []},
    "event_post": {"queue_name": "q1", "events": []},
    "subscription_confirm": {"queue_name": "q1", "subscription_id": "1", "confirmed": True},
}


def test_a_token_opens_its_project(guarded: Socket) -> None:
    reply = guarded.send(
        written(
            request("authenticate", headers={"X-Project-ID": PROJECT, "X-Auth-Token": token(guarded)}),
            guarded.encoding,
        )
    )

    assert reply == {
        "request": {"action": "authenticate", "body": {}, "headers": {}, "api": "v2"},
        "body": {"message": "Authentified."},
        "headers": {"status": 200},
    }
    assert guarded.do("queue_create", queue_name="q1").status == 201
    assert guarded.done("queue_list") == {"queues": [{"name": "q1"}]}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_reply_is_written_like_the_request_to_authenticate(open_api, encoding: str) -> None:
    """Whatever else is spoken over the connection."""
    api = open_api(auth_strategy="token")
    socket = Socket(api.service, api.headers, encoding=next(each for each in ENCODINGS if each != encoding))
    assert socket.do("queue_list") == NOT_AUTHENTIFIED
    asked = request("authenticate", headers={**socket.headers, "X-Auth-Token": token(socket)})

    assert check_reply(socket.send(written(asked, encoding))) == AUTHENTIFIED
    assert socket.do("queue_list").status == 200


@pytest.mark.parametrize("body", [ABSENT, None, [], {"queue_name": 5}])
def test_authenticating_needs_no_body(guarded: Socket, body: Any) -> None:
    assert guarded.call("authenticate", body, X_Auth_Token=token(guarded)) == AUTHENTIFIED


@pytest.mark.parametrize("header", ["X-Project-ID", "X-Auth-Token"])
@pytest.mark.parametrize("value", [ABSENT, None, 5, []])
def test_authenticating_needs_both_headers(guarded: Socket, header: str, value: Any) -> None:
    sent = {"X-Project-ID": PROJECT, "X-Auth-Token": token(guarded), header: value}
    headers = {name: value for name, value in sent.items() if value is not ABSENT}
    reply = guarded.send(written(request("authenticate", headers=headers), guarded.encoding))

    assert check_reply(reply) == NOT_VALID
    assert guarded.do("queue_list") == NOT_AUTHENTIFIED


@pytest.mark.parametrize("secret", ["", "wrong", "hermod_x_y", "\u00e9", "\x00", "x" * 10_000, " "])
def test_what_is_no_token_opens_nothing_and_may_be_followed_by_one(guarded: Socket, secret: str) -> None:
    assert authenticate(guarded, secret) == FAILED
    assert guarded.do("queue_list") == NOT_AUTHENTIFIED
    assert authenticate(guarded, token(guarded)) == AUTHENTIFIED
    assert guarded.do("queue_list").status == 200


def test_a_failure_is_told_of_in_the_same_form(guarded: Socket) -> None:
    asked = request("authenticate", {"a": 1}, {**guarded.headers, "X-Auth-Token": "wrong"})

    assert guarded.send(written(asked, guarded.encoding)) == {
        "request": {"action": "authenticate", "body": {}, "headers": {}, "api": "v2"},
        "body": {"error": "Authentication failed."},
        "headers": {"status": 401},
    }


def test_a_store_that_fails_is_no_wrong_token(guarded: Socket, driver: BreakableDriver) -> None:
    secret = token(guarded)
    driver.break_()
    assert authenticate(guarded, secret) == (503, {"error": "Authentication failed."})
    driver.mend()
    assert authenticate(guarded, secret) == AUTHENTIFIED


@pytest.mark.parametrize("again", [True, False])
def test_while_a_token_is_looked_at_nothing_else_is_answered(
    guarded: Socket, driver: BreakableDriver, monkeypatch, again: bool
) -> None:
    """Also where somebody had authenticated before."""
    if again:
        member(guarded)
    secret = token(guarded)
    meanwhile = during(driver, monkeypatch, lambda: guarded.do("queue_list"))

    assert authenticate(guarded, secret) == AUTHENTIFIED
    assert meanwhile == [NOT_AUTHENTIFIED]


def test_a_failure_ends_what_was_before(guarded: Socket) -> None:
    member(guarded)

    assert authenticate(guarded, "wrong") == FAILED
    assert guarded.do("queue_list") == NOT_AUTHENTIFIED


def test_somebody_else_may_go_on_with_a_connection(guarded: Socket) -> None:
    member(guarded)
    guarded.post("blue")
    assert authenticate(guarded, token(guarded, Role.READER, "red"), X_Project_ID="red") == AUTHENTIFIED

    assert guarded.do("queue_list") == NOT_AUTHENTIFIED, "the project is another one now"
    guarded.headers["X-Project-ID"] = "red"
    assert guarded.done("queue_list") == {"queues": []}
    assert guarded.do("queue_create", queue_name="q1").status == 403
    assert [each.project for each in guarded.link.identities] == [PROJECT, "red"]


@pytest.mark.parametrize("project", ["red", "", PROJECT.upper(), PROJECT + " ", "x" * 300])
def test_a9_a_token_is_for_its_project_alone(guarded: Socket, project: str) -> None:
    for role in Role:
        member(guarded, role)
        for action, body in CONTRACT.items():
            if action != "authenticate":
                assert guarded.call(action, body, X_Project_ID=project) == NOT_AUTHENTIFIED, action


def test_a9_what_the_headers_say_of_somebody_does_not_count(guarded: Socket) -> None:
    member(guarded, Role.READER)
    claims = {"X-Roles": "admin", "X-Tenant-ID": "red", "X-User-ID": "root", "EXTRA-SPEC": "messagecode:1"}

    assert guarded.call("queue_create", {"queue_name": "q1"}, **claims).status == 403
    assert guarded.call("queue_list", {}, **claims) == (200, {"queues": []})


@pytest.mark.parametrize("role", Role)
def test_a9_the_rules_are_those_of_rest(open_socket, role: Role) -> None:
    """By name: what a role may do, no more and no less."""
    socket = open_socket(auth_strategy="token", admin=True)
    member(socket, role)
    for name, action in actions(admin=True, pooling=False).items():
        body = {"subscription_id": "1", **GOOD.get(name, {"queue_name": "q1"})}
        needed = RULES[action.operation.rule or "ping:get"]
        status, answer = socket.call(name, body)
        assert (status == 403) == (role < needed), (name, status, answer)
        if status == 403:
            assert answer["error"]
            assert needed.name.lower() in answer["exception"]


def test_rules_hold_for_what_is_about_the_connection_too(guarded: Socket) -> None:
    member(guarded, Role.READER)
    resume = {"queue_name": "q1", "subscription_id": "1", "sequence": 0}

    assert guarded.do("subscription_create", queue_name="q1").status == 403
    assert guarded.do("subscription_create", queue_name="q1", options={"mode": "claim"}).status == 403
    assert guarded.do("subscription_resume", **resume).status == 403
    assert not guarded.link.followed
    assert not guarded.link.leased


def test_who_may_not_claim_gets_nothing_leased(open_socket) -> None:
    socket = member(open_socket(auth_strategy="token", access={"claims:create": "admin"}))

    assert socket.do("subscription_create", queue_name="q1").status == 201
    assert socket.do("subscription_create", queue_name="q2", options={"mode": "claim"}).status == 403
    assert socket.link.leased == {}


def test_a_token_expires(guarded: Socket, clock) -> None:
    member(guarded, expires=clock() + 2500)
    clock.advance(2.4)
    assert guarded.do("queue_list").status == 200
    assert guarded.session.still_valid()
    clock.advance(0.1)

    assert guarded.do("queue_list") == NOT_AUTHENTIFIED
    assert not guarded.session.still_valid()


def test_a_token_that_was_revoked_opens_nothing_a_moment_later(guarded: Socket, clock) -> None:
    found, secret = guarded.service.tokens.create(PROJECT, Role.MEMBER)
    assert authenticate(guarded, secret) == AUTHENTIFIED
    guarded.service.tokens.revoke(found.id)
    clock.advance(1)

    assert guarded.do("queue_list") == NOT_AUTHENTIFIED
    assert not guarded.session.still_valid()
    assert not guarded.session.still_valid(), "as long as nobody has authenticated anew"
    assert authenticate(guarded, secret) == FAILED
    assert member(guarded).session.still_valid()


def test_a_store_that_fails_ends_no_connection(guarded: Socket, driver: BreakableDriver, clock) -> None:
    member(guarded)
    driver.break_()
    clock.advance(5)
    assert guarded.do("queue_list").status == 503
    driver.mend()

    assert guarded.do("queue_list").status == 200


def test_what_is_pushed_depends_on_the_old_token_until_there_is_another_one(guarded: Socket) -> None:
    found, secret = guarded.service.tokens.create(PROJECT, Role.MEMBER)
    assert authenticate(guarded, secret) == AUTHENTIFIED
    assert authenticate(guarded, "wrong") == FAILED
    assert guarded.session.still_valid()
    guarded.service.tokens.revoke(found.id)

    assert not guarded.session.still_valid()


def test_a_look_at_the_old_token_does_not_bring_it_back(
    guarded: Socket, driver: BreakableDriver, monkeypatch
) -> None:
    """Somebody authenticates anew while the node looks after the tokens of its connections."""
    member(guarded)
    secret = token(guarded, Role.READER, "red")
    meanwhile = during(driver, monkeypatch, lambda: authenticate(guarded, secret))
    assert guarded.session.still_valid()

    assert meanwhile == [AUTHENTIFIED]
    assert guarded.do("queue_list") == NOT_AUTHENTIFIED
    assert guarded.call("queue_list", {}, X_Project_ID="red").status == 200


def test_a12_the_log_tells_neither_tokens_nor_bodies(guarded: Socket, logged) -> None:
    secret = token(guarded)
    member(guarded)
    authenticate(guarded, secret)
    authenticate(guarded, "a secret that is wrong")
    guarded.do("message_post", queue_name="q1", messages=[{"body": "what nobody may know"}])
    guarded.do("message_post", queue_name="q1", messages=[{"body": "what nobody may know", "ttl": 1}])

    assert secret not in logged()
    assert "a secret that is wrong" not in logged()
    assert "what nobody may know" not in logged()


# --- pre-signed frames


def sign(socket: Socket, *, queue: str = "q1", project: str = PROJECT, **wish: Any) -> dict[str, Any]:
    """Return the headers that show a pre-signed URL."""
    now = datetime.fromtimestamp(socket.service.clock() / 1000, UTC)
    signed = socket.service.signer.share(project, queue, wish, now=now)
    return {
        "URL-Signature": signed.signature,
        "URL-Expires": signed.expires,
        "URL-Methods": list(signed.methods),
        "URL-Paths": list(signed.paths),
    }


@pytest.fixture
def posted(guarded: Socket) -> list[str]:
    """Messages of somebody who has a token."""
    other = member(Socket(guarded.service, {**guarded.headers, "Client-ID": ANOTHER_CLIENT}))
    ids = other.post("a", "b", "c")
    other.post("z", queue="q2")
    return ids


@pytest.mark.parametrize(
    ("method", "action", "members"),
    [
        ("GET", "message_list", {}),
        ("GET", "message_get", {"message_id": "1"}),
        ("GET", "message_get_many", {"message_ids": ["1"]}),
        ("POST", "message_post", {"messages": [{"body": 1}]}),
        ("DELETE", "message_delete", {"message_id": "1"}),
        ("DELETE", "message_delete_many", {"pop": 1}),
    ],
)
def test_a_signed_frame_does_what_was_signed(
    guarded: Socket, posted: list[str], method: str, action: str, members: dict[str, Any]
) -> None:
    body = {"queue_name": "q1", **members}
    others = {"GET", "POST", "DELETE"} - {method}

    assert guarded.call(action, body, **sign(guarded, methods=[method])).status in (200, 201, 204, 404)
    assert guarded.call(action, body, **sign(guarded, methods=["PUT", method])).status != 403
    assert guarded.call(action, body, **sign(guarded, methods=sorted(others))) == NOT_AUTHENTIFIED
    assert guarded.call(action, body) == NOT_AUTHENTIFIED, "the connection is not authenticated by that"


def test_a_signed_frame_is_answered_like_any_other(guarded: Socket, posted: list[str]) -> None:
    told = guarded.call("message_list", {"queue_name": "q1"}, **sign(guarded))

    assert told.status == 200
    assert [each["id"] for each in told.body["messages"]] == posted


def test_no_other_action_can_be_signed(guarded: Socket, posted: list[str]) -> None:
    every = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]
    shown = sign(guarded, paths=["messages", "claims", "subscriptions"], methods=every)
    for name in (*actions(admin=False, pooling=False), *CONNECTION_ACTIONS):
        body = {"subscription_id": "1", "sequence": 0, **GOOD.get(name, {"queue_name": "q1"})}
        status, _ = guarded.call(name, body, **shown)
        if name == "authenticate":
            assert status == 400, "it needs a token"
        else:
            assert (status == 403) == (name not in SIGNABLE), name


SIGNABLE = {
    "message_list",
    "message_get",
    "message_get_many",
    "message_post",
    "message_delete",
    "message_delete_many",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"URL-Signature": "f" * 64},
        {"URL-Signature": ""},
        {"URL-Signature": 5},
        {"URL-Signature": ABSENT},
        {"URL-Expires": "2100-01-01T00:00:00"},
        {"URL-Expires": "soon"},
        {"URL-Expires": None},
        {"URL-Expires": ABSENT},
        {"URL-Methods": ["DELETE", "GET"]},
        {"URL-Methods": "GET"},
        {"URL-Methods": [5]},
        {"URL-Methods": []},
        {"URL-Methods": ABSENT},
        {"URL-Paths": [MESSAGES, "/v2/queues/q1/claims"]},
        {"URL-Paths": []},
        {"URL-Paths": [""]},
        {"URL-Paths": ["/v2/queues/q1"]},
        {"URL-Paths": MESSAGES},
        {"URL-Paths": [None]},
        {"URL-Paths": ABSENT},
        {"X-Project-ID": "red"},
        {"X-Project-ID": ""},
    ],
)
def test_what_is_shown_must_be_what_was_signed(
    guarded: Socket, posted: list[str], changed: dict[str, Any]
) -> None:
    headers = {**sign(guarded), **changed}

    assert guarded.call("message_list", {"queue_name": "q1"}, **headers) == NOT_AUTHENTIFIED


def test_a_signed_frame_expires(guarded: Socket, posted: list[str], clock) -> None:
    headers = sign(guarded)
    clock.advance(24 * 3600 - 1)
    assert guarded.call("message_list", {"queue_name": "q1"}, **headers).status == 200
    clock.advance(1)

    assert guarded.call("message_list", {"queue_name": "q1"}, **headers) == NOT_AUTHENTIFIED


def test_a9_a_signed_frame_names_a_queue_that_was_signed(guarded: Socket, posted: list[str]) -> None:
    headers = sign(guarded)
    for queue in ("q2", "q11", "q", "", "../q1", "q1/messages/x", "q1/messages", "Q1"):
        assert guarded.call("message_list", {"queue_name": queue}, **headers).status in (400, 403), queue
    elsewhere = sign(guarded, paths=["claims"])
    assert guarded.call("message_list", {"queue_name": "q1"}, **elsewhere) == NOT_AUTHENTIFIED


def test_who_signed_a_frame_still_names_a_client(guarded: Socket, posted: list[str]) -> None:
    headers = sign(guarded)

    assert guarded.call("message_list", {"queue_name": "q1"}, **headers, Client_ID=ABSENT) == NOT_VALID
    assert guarded.call("message_list", {"queue_name": "q1"}, **headers, Client_ID="nobody").status == 400


def test_a_signed_frame_has_no_more_rights_than_a_member(guarded: Socket, posted: list[str]) -> None:
    told = guarded.call(
        "message_list", {"queue_name": "q1", "limit": 2}, **sign(guarded), X_Roles="admin", X_Auth_Token="x"
    )

    assert len(told.body["messages"]) == 2
