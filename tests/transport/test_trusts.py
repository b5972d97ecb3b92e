"""Tokens of Keystone's from the header of a subscription to the receiver of a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import web

from queues.models import Address, DeliveryCounts, Role
from queues.service.catalogue import SUBSCRIPTION, subscriptions_scope
from queues.service.trusts import with_trust
from tests.keystone import Keystone
from tests.notifiers.receivers import Receiver
from tests.transport.conftest import CLIENT, ONE_STORE, Client, assert_problem
from tests.transport.sockets import Socket
from tests.transport.websocket.live import PROJECT, World, run, until, world
from transport.wsgi.app import create_app

SUBSCRIPTIONS = "/v2/queues/q/subscriptions"
ADDRESS = Address(project=PROJECT, queue="q")
HOOK = "trust+http://hook.example.org/"
QUICK = {"_retry_policy": {"delays": [0, *[1] * 20]}}


@pytest.fixture
def keystone(clock) -> Iterator[Keystone]:
    """A Keystone by the clock of the tests' stores."""
    with Keystone(clock=lambda: clock() / 1000).serving() as serving:
        yield serving


@pytest.fixture
def real() -> Iterator[Keystone]:
    """A Keystone by the time of day."""
    with Keystone().serving() as serving:
        yield serving


# --- where a token comes from


@ONE_STORE
def test_a_token_of_hermods_own_goes_beside_that_of_keystone(open_api, keystone):
    """Who shows Hermod's token as a bearer has X-Auth-Token for the other one."""
    api = open_api(auth_strategy="token", keystone=keystone.settings())
    own = api.service.tokens.create("acme", Role.MEMBER)[1]
    both = api.sending(Authorization=f"Bearer {own}", X_Auth_Token=keystone.login("bob"))

    assert both.post(SUBSCRIPTIONS, {"subscriber": HOOK}).status_code == 201
    assert [trust.trustor for trust in keystone.trusts.values()] == ["id of bob"]
    assert api.sending(X_Auth_Token=keystone.login("bob")).get(SUBSCRIPTIONS).status_code == 401
    assert api.sending(Authorization="Bearer no", X_Auth_Token=own).get(SUBSCRIPTIONS).status_code == 200


@ONE_STORE
def test_a_token_of_hermods_own_is_none_of_keystones_business(open_api, keystone):
    api = open_api(auth_strategy="token", keystone=keystone.settings())
    own = api.service.tokens.create("acme", Role.MEMBER)[1]
    for headers in ({"X_Auth_Token": own}, {"Authorization": f"Bearer {own}"}):
        answer = api.sending(**headers).post(SUBSCRIPTIONS, {"subscriber": HOOK})
        assert_problem(answer, 400, "Invalid API request")
        assert "X-Auth-Token" in answer.json["description"]

    assert keystone.asked == []


@ONE_STORE
def test_refusals_say_what_is_wrong(open_api, keystone):
    without = open_api().post(SUBSCRIPTIONS, {"subscriber": HOOK})
    assert_problem(without, 400, "Invalid API request")
    assert "must be supported in the list" in without.json["description"]
    assert "Keystone" in without.json["description"]

    api = open_api(keystone=keystone.settings())
    unknown = api.sending(X_Auth_Token="x").post(SUBSCRIPTIONS, {"subscriber": HOOK})
    assert_problem(unknown, 401, "Unauthorized")
    unscoped = api.sending(X_Auth_Token=keystone.login(project=None)).post(
        SUBSCRIPTIONS, {"subscriber": HOOK}
    )
    assert_problem(unscoped, 403, "Not authorized")
    for answer, code in ((unknown, "Keystone does not know"), (unscoped, "not scoped to a project")):
        assert code in answer.json["description"]
    keystone.failing = 500
    down = api.sending(X_Auth_Token=keystone.login()).post(SUBSCRIPTIONS, {"subscriber": HOOK})
    assert_problem(down, 503, "Service temporarily unavailable")
    assert down.headers["retry-after"]


@ONE_STORE
def test_a_connection_shows_its_token_once(open_socket, keystone):
    """As python-zaqarclient does, which sends it with `authenticate` and never again."""
    socket: Socket = open_socket(keystone=keystone.settings())
    wish = {"queue_name": "q", "subscriber": HOOK}
    assert socket.do("subscription_create", **wish).status == 400
    socket.call("authenticate", X_Auth_Token=keystone.login("alice"))
    assert socket.do("subscription_create", **wish).status == 201
    other = socket.call(
        "subscription_create", {**wish, "queue_name": "r"}, X_Auth_Token=keystone.login("bob")
    )

    assert other.status == 201
    assert [trust.trustor for trust in keystone.trusts.values()] == ["id of alice", "id of bob"]
    socket.call("authenticate")
    assert socket.do("subscription_create", **{**wish, "queue_name": "s"}).status == 400


@ONE_STORE
def test_a_connection_with_a_token_of_hermods_own_shows_that_of_keystone_with_a_frame(open_socket, keystone):
    socket: Socket = open_socket(auth_strategy="token", keystone=keystone.settings())
    own = socket.service.tokens.create(socket.headers["X-Project-ID"], Role.MEMBER)[1]
    socket.call("authenticate", X_Auth_Token=own)
    wish = {"queue_name": "q", "subscriber": HOOK}

    assert socket.call("subscription_create", wish, X_Auth_Token=own).status == 400
    assert keystone.asked == []
    assert socket.call("subscription_create", wish, X_Auth_Token=keystone.login()).status == 201


@ONE_STORE
def test_a12_tokens_are_not_logged(open_api, keystone, logged):
    token = keystone.login()
    api = open_api(keystone=keystone.settings()).sending(X_Auth_Token=token)
    assert api.post(SUBSCRIPTIONS, {"subscriber": HOOK}).status_code == 201
    keystone.failing = 500
    assert api.post(SUBSCRIPTIONS, {"subscriber": f"{HOOK}2"}).status_code == 503

    assert "cannot make a trust" in logged()
    assert token not in logged()


# --- where it goes


class Guarded(Receiver):
    """A subscriber that takes what has a token of Alice's, and nothing else."""

    def __init__(self, keystone: Keystone) -> None:
        super().__init__()
        self.keystone = keystone
        self.tokens: list[str] = []  # of what it was sent, good or not
        self.taken = 0
        self.refused: set[str] = set()  # tokens that were revoked

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers.get("X-Auth-Token", "")
        self.tokens.append(token)
        granted = self.keystone.tokens.get(token)
        good = granted is not None and granted.user == "id of alice" and token not in self.refused
        self.status = 204 if good else 401
        self.taken += good
        return await super().answer(request)


@dataclass
class Scene:
    """A service with its notifier, a subscriber, and a client of the service."""

    world: World
    receiver: Guarded
    api: Client

    async def subscribe(self, **wish: Any) -> str:
        body = {"subscriber": f"trust+{self.receiver.url}", "options": QUICK, **wish}
        answer = await asyncio.to_thread(self.api.post, SUBSCRIPTIONS, body)
        assert answer.status_code == 201, answer.text
        return str(answer.json["subscription_id"])

    async def deliver(self) -> None:
        """Post a message, and wait until the subscriber has taken it."""
        before = self.receiver.taken
        await self.world.post("hello")
        await self.takes(before + 1)

    async def takes(self, count: int) -> None:
        """Wait until the subscriber has taken so many."""
        await until(lambda: self.receiver.taken == count, f"{count} are taken")

    def counts(self, id_: str) -> DeliveryCounts:
        return self.world.service.deliveries.counts(ADDRESS, id_)


@asynccontextmanager
async def scene(keystone: Keystone, **settings: Any) -> AsyncIterator[Scene]:
    receiver = Guarded(keystone)
    async with (
        receiver.listening(),
        world(keystone=keystone.settings(**settings), egress={"allow": ["127.0.0.0/8"]}, nodes=0) as found,
    ):
        identity = {"Client-ID": CLIENT, "X-Project-ID": PROJECT, "X-Auth-Token": keystone.login("alice")}
        yield Scene(
            found, receiver, Client(service=found.service, app=create_app(found.service), headers=identity)
        )


def test_messages_arrive_with_a_token_of_whoever_subscribed(real):
    async def scenario() -> None:
        async with scene(real) as here:
            await here.subscribe()
            for _ in range(3):
                await here.deliver()
            [token] = set(here.receiver.tokens)
            granted = real.tokens[token]
            assert (granted.user, granted.project, granted.roles) == ("id of alice", "p-blue", ["member"])
            assert real.fetched() == 1, "one token serves all of them"

    run(scenario())


def test_a_token_that_was_revoked_is_replaced(real):
    async def scenario() -> None:
        async with scene(real) as here:
            await here.subscribe()
            await here.deliver()
            here.receiver.refused.update(here.receiver.tokens)
            await here.deliver()
            first, again, second = here.receiver.tokens
            assert (first, first != second) == (again, True)

    run(scenario())


def test_tokens_that_expire_at_once_are_not_used_twice(real):
    async def scenario() -> None:
        real.lifetime = 30.0  # within the margin
        async with scene(real) as here:
            await here.subscribe()
            await here.deliver()
            await here.deliver()
            assert len(set(here.receiver.tokens)) == 2

    run(scenario())


@pytest.mark.parametrize("fault", ["down", "wrong password"])
def test_p9_while_keystone_gives_no_tokens_messages_wait(real, fault):
    async def scenario() -> None:
        async with scene(real) as here:
            id_ = await here.subscribe()
            if fault == "down":
                real.failing = 503
            else:
                real.password = "another"
            await here.world.post("hello")
            await until(lambda: here.counts(id_).failed >= 2, "it was tried")
            assert "Keystone" in (here.counts(id_).last_error or "")
            assert here.receiver.tokens == []
            real.failing, real.password = None, real.settings()["password"]
            await here.takes(1)
            assert here.counts(id_).dead == 0

    run(scenario())


def test_a_trust_that_is_gone_is_told_and_can_be_made_anew(real):
    async def scenario() -> None:
        async with scene(real) as here:
            id_ = await here.subscribe()
            real.trusts.clear()
            await here.world.post("hello")
            await until(lambda: here.counts(id_).dead == 1, "it is given up")
            found = here.counts(id_)
            assert (found.failed, here.receiver.tokens) == (1, [])
            assert (found.last_error or "").startswith("Keystone gives no more tokens: the trust has ended")
            path = f"{SUBSCRIPTIONS}/{id_}"
            assert (await asyncio.to_thread(here.api.patch, path, {"ttl": 600})).status_code == 204
            replay = await asyncio.to_thread(here.api.post, f"{path}/replay", {"since": "2020-01-01"})
            assert replay.json == {"replayed": 1}
            await here.takes(1)

    run(scenario())


def test_who_subscribed_before_there_was_a_keystone_is_told_what_to_do(real):
    """Subscriptions without a trust were possible once."""

    async def scenario() -> None:
        async with scene(real) as here:
            id_ = await here.subscribe()
            records, scope = here.world.driver.records, subscriptions_scope(ADDRESS)
            [record] = records.scan(SUBSCRIPTION, scope, limit=2)
            options = with_trust(record.data["options"], None)
            assert records.replace(replace(record, data={**record.data, "options": options}))
            await here.world.post("hello")
            await until(lambda: here.counts(id_).dead == 1, "it is given up")
            assert "has no trust" in (here.counts(id_).last_error or "")

    run(scenario())
