"""python-zaqarclient's websocket transport, unmodified, against a real `hermod websocket`. Section 7.

It writes one frame, reads one, and takes that for the reply. It does not send parameters, so that
callers put everything in the body.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from zaqarclient import transport
from zaqarclient.transport import errors
from zaqarclient.transport.request import Request

from queues.models import Role
from tests.acceptance.processes import GONE, PROJECT, Hermod, wait_until
from transport.settings import Settings
from transport.wiring import open_service

Ask = Callable[..., Any]


@contextmanager
def serving(folder: Path, strategy: str) -> Iterator[Hermod]:
    """Run the service on a file."""
    hermod = Hermod(folder=folder, command="websocket", environ={"HERMOD_AUTH_STRATEGY": strategy})
    hermod.store.parent.mkdir()
    process = hermod.launch()

    def ready() -> bool:
        assert process.poll() is None, hermod.log
        with suppress(*GONE), closing(http.client.HTTPConnection("127.0.0.1", hermod.port)) as connection:
            connection.request("GET", "/")
            return connection.getresponse().status == 426
        return False

    try:
        wait_until(ready, "the service answers")
        yield hermod
    finally:
        code = hermod.stop()
    assert code == 0
    assert "Traceback" not in hermod.log


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hermod]:
    """A service that demands tokens."""
    with serving(tmp_path_factory.mktemp("websocket"), "token") as hermod:
        yield hermod


@contextmanager
def client(hermod: Hermod, token: str, project: str = PROJECT) -> Iterator[Ask]:
    """Return what asks for an operation and returns what came of it; raises an error of the client's own."""
    endpoint = f"ws://127.0.0.1:{hermod.port}"
    options = {"os_auth_token": token, "os_project_id": project}
    with transport.get_transport_for(endpoint, options={"auth_opts": {"options": options}}) as opened:

        def ask(operation: str, **body: Any) -> Any:
            content = json.dumps(body) if body else None
            return opened.send(Request(endpoint, operation, content=content)).deserialized_content

        yield ask


def new_token(hermod: Hermod, project: str = PROJECT, role: Role = Role.MEMBER) -> str:
    service = open_service(Settings(store=f"sqlite:///{hermod.store}"))
    try:
        return service.tokens.create(project, role)[1]
    finally:
        service.close()


def test_it_does_everything_over_one_connection(served: Hermod) -> None:
    with client(served, new_token(served)) as ask:
        assert ask("queue_create", queue_name="foo", metadata={"colour": "red"}) == "Queue foo created."
        assert ask("queue_list") == {"queues": [{"name": "foo"}]}
        assert ask("queue_get", queue_name="foo") == {"colour": "red"}
        posted = ask(
            "message_post", queue_name="foo", messages=[{"body": {"a": "\u00e9"}, "ttl": 60}, {"body": 2}]
        )
        ids = posted["message_ids"]
        found = ask("message_list", queue_name="foo", echo=True)["messages"]
        assert [(each["id"], each["body"]) for each in found] == [(ids[0], {"a": "\u00e9"}), (ids[1], 2)]
        assert ask("message_get", queue_name="foo", message_id=ids[0])["messages"]["ttl"] == 60
        claim = ask("claim_create", queue_name="foo", limit=1)
        assert ask("message_delete", queue_name="foo", message_id=ids[0], claim_id=claim["claim_id"]) == {}
        assert ask("message_delete_many", queue_name="foo", pop=1)["messages"][0]["body"] == 2
        assert ask("queue_get_stats", queue_name="foo")["messages"]["total"] == 0
        assert ask("claim_create", queue_name="foo") == {"claim_id": None}
        made = ask("subscription_create", queue_name="foo", subscriber="http://hook.example.org/", ttl=600)
        (listed,) = ask("subscription_list", queue_name="foo")["subscriptions"]
        assert listed["id"] == made["subscription_id"]
        assert ask("queue_delete", queue_name="foo") == "Queue foo removed."


def test_it_is_told_what_went_wrong(served: Hermod) -> None:
    with client(served, new_token(served)) as ask:
        ask("queue_create", queue_name="bar")
        (id_,) = ask("message_post", queue_name="bar", messages=[{"body": 1}])["message_ids"]
        ask("claim_create", queue_name="bar")

        for error, operation, body in (
            (errors.MalformedRequest, "nonsense", {}),
            (errors.MalformedRequest, "queue_get", {}),
            (errors.MalformedRequest, "queue_list", {"limit": 21}),
            (errors.MalformedRequest, "message_post", {"queue_name": "bar", "messages": [{}]}),
            (errors.ForbiddenError, "message_delete", {"queue_name": "bar", "message_id": id_}),
            (errors.ResourceNotFound, "message_get", {"queue_name": "bar", "message_id": "1"}),
            (errors.ResourceNotFound, "claim_get", {"queue_name": "bar", "claim_id": "1"}),
            (errors.ResourceNotFound, "queue_get_stats", {"queue_name": "missing"}),
        ):
            with pytest.raises(error) as caught:
                ask(operation, **body)
            if operation == "claim_get":
                assert "Claim 1 does not exist." in str(caught.value)
        wish = {"queue_name": "bar", "subscriber": "http://hook.example.org/"}
        ask("subscription_create", **wish)
        with pytest.raises(errors.ConflictError, match="Subscription bar not created"):
            ask("subscription_create", **wish)


@pytest.mark.parametrize("token", ["wrong", ""])
def test_without_a_token_it_is_let_in_nowhere(served: Hermod, token: str) -> None:
    with client(served, token) as ask, pytest.raises(errors.UnauthorizedError):
        ask("queue_list")


def test_a_token_is_for_its_project(served: Hermod) -> None:
    with client(served, new_token(served, "red")) as ask, pytest.raises(errors.ForbiddenError):
        ask("queue_list")
    with client(served, new_token(served, role=Role.READER)) as ask:
        with pytest.raises(errors.ForbiddenError):
            ask("queue_create", queue_name="foo")
        assert ask("queue_get", queue_name="missing") == {}


def test_where_there_are_no_tokens_it_shows_one_all_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, "none") as hermod, client(hermod, "whatever") as ask:
        assert ask("queue_create", queue_name="foo") == "Queue foo created."
        assert ask("queue_list") == {"queues": [{"name": "foo"}]}
