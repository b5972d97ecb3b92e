"""What becomes of a connection whose client authenticates again. Section 4, over real connections."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from queues.models import Role
from tests.transport.conftest import PROJECT
from tests.transport.websocket import live


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    live.run(scenario())


async def speaks(client: live.Client, secret: str, status: int = 200) -> None:
    client.headers["X-Auth-Token"] = secret
    await client.do("authenticate", status)


def test_a_token_that_is_refused_does_not_prolong_the_one_before() -> None:
    async def scenario() -> None:
        async with live.world(auth_strategy="token", notifying=False) as world:
            client = await world.connect()
            expires = world.service.clock() + 300
            await speaks(client, world.service.tokens.create(PROJECT, Role.MEMBER, expires=expires)[1])
            await client.subscribe()
            await speaks(client, "wrong", 401)

            assert (await client.closed()).code == 4003

    run(scenario)


def test_p8_a_connection_of_another_project_is_told_nothing_of_the_one_before() -> None:
    async def scenario() -> None:
        async with live.world(auth_strategy="token") as world:
            client = await world.connect()
            tokens = world.service.tokens
            await speaks(client, tokens.create(PROJECT, Role.MEMBER)[1])
            await client.subscribe("q")
            leases = await client.subscribe("leased", mode="claim")
            await speaks(client, tokens.create("red", Role.MEMBER)[1])
            client.headers["X-Project-ID"] = "red"
            await live.until(lambda: not world.subscriptions(), "the subscription is gone")
            await client.subscribe("q")
            await world.post("blue")
            await world.post("blue", queue="leased")
            await world.post("red", project="red")

            assert await client.bodies(1) == ["red"]
            assert await client.nothing_pushed()
            assert world.free("leased") == 1
            await client.do("subscription_delete", 204, queue_name="leased", subscription_id=leases)

    run(scenario)


def test_the_same_project_goes_on_with_its_subscriptions() -> None:
    async def scenario() -> None:
        async with live.world(auth_strategy="token") as world:
            client = await world.connect()
            for _ in range(2):
                await speaks(client, world.service.tokens.create(PROJECT, Role.MEMBER)[1])
                if not world.subscriptions():
                    await client.subscribe()
            await world.post("a")

            assert await client.bodies(1) == ["a"]

    run(scenario)


def test_the_example_of_the_protocol() -> None:
    """Section 8, to the letter."""

    async def scenario() -> None:
        async with live.world(auth_strategy="token") as world:
            client = await world.connect()
            client.headers["X-Auth-Token"] = world.service.tokens.create(PROJECT, Role.MEMBER)[1]
            await client.send("authenticate")
            assert await client.reply() == {
                "request": {"action": "authenticate", "body": {}, "headers": {}, "api": "v2"},
                "body": {"message": "Authentified."},
                "headers": {"status": 200},
            }
            del client.headers["X-Auth-Token"]
            made = await client.ask("subscription_create", queue_name="kitkat", ttl=600)
            assert made == {
                "request": {
                    "action": "subscription_create",
                    "headers": client.headers,
                    "body": {"queue_name": "kitkat", "ttl": 600},
                    "api": "v2",
                },
                "body": {
                    "message": "Subscription kitkat created.",
                    "subscription_id": made["body"]["subscription_id"],
                },
                "headers": {"status": 201},
            }
            await world.post({"status": "disco queen"}, queue="kitkat", ttl=60)
            assert await client.pushed() == {
                "body": {"status": "disco queen"},
                "ttl": 60,
                "queue_name": "kitkat",
                "Message_Type": "Notification",
            }

    run(scenario)
