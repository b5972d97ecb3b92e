"""Messages are pushed to those who are connected. Sections 5.4 and 6."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import WSMsgType

from queues.models import Address, Selection
from queues.service import presence
from tests.transport.websocket.live import PROJECT, World, run, until, world
from transport.websocket import node as node_module
from transport.websocket import streams

ENCODINGS = pytest.mark.parametrize("binary", [False, True], ids=["json", "msgpack"])


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes look after their subscriptions all the time."""
    monkeypatch.setattr(node_module, "_LOOK", 0.02)


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts on the clock that tells nodes how long subscriptions have lived."""
    ahead = [0.0]
    put_on_clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead[0])
    monkeypatch.setattr(streams, "time", put_on_clock)

    def put_on(seconds: float) -> None:
        ahead[0] += seconds

    return put_on


@ENCODINGS
def test_a_notification_is_a_frame_with_these_members_and_no_others(binary):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect(binary=binary)
            made = await client.do("subscription_create", 201, queue_name="q", ttl=600)
            assert set(made) == {"subscription_id", "message"}
            assert made["message"] == "Subscription q created."

            await w.post({"status": "disco queen"}, ttl=60)

            notification = {
                "body": {"status": "disco queen"},
                "ttl": 60,
                "queue_name": "q",
                "Message_Type": "Notification",
            }
            assert await client.pushed() == notification
            assert client.received[-1][0] is (WSMsgType.BINARY if binary else WSMsgType.TEXT)

    run(scenario())


def test_each_message_is_a_frame_of_its_own_in_the_order_of_the_posts():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()

            for number in range(0, 60, 3):
                await w.post(number, number + 1, number + 2)

            assert await client.bodies(60) == list(range(60))

    run(scenario())


def test_a_client_that_posts_is_told_of_its_own_messages_too():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()
            await client.do("message_post", 201, queue_name="q", messages=[{"body": 1}])
            assert await client.bodies(1) == [1]

    run(scenario())


def test_the_encoding_is_that_of_the_last_subscription_whatever_came_later():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe("q")
            client.binary = True
            await client.subscribe("r")
            client.binary = False
            await client.do("queue_list", 200)

            await w.post(1, queue="q")
            assert await client.bodies(1) == [1]
            await client.subscribe("s")
            await w.post(2, queue="r")
            assert await client.bodies(1) == [2]

            assert [kind for kind, frame in client.received if "request" not in frame] == [
                WSMsgType.BINARY,
                WSMsgType.TEXT,
            ]

    run(scenario())


def test_a_refused_subscription_does_not_change_the_encoding():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe("q")
            client.binary = True
            await client.do("subscription_create", 409, queue_name="q")
            await client.do("subscription_create", 400, queue_name="r", ttl=1)

            await w.post(1)

            assert await client.bodies(1) == [1]
            assert client.received[-1][0] is WSMsgType.TEXT

    run(scenario())


def test_e9_delayed_messages_are_told_when_they_are_due_with_their_delay():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()

            start = asyncio.get_running_loop().time()
            await w.post("late", delay=1)
            await w.post("at once")

            assert (await client.pushed())["body"] == "at once"
            late = await client.pushed()
            assert late == {
                "body": "late",
                "ttl": 3600,
                "delay": 1,
                "queue_name": "q",
                "Message_Type": "Notification",
            }
            assert asyncio.get_running_loop().time() - start >= 0.99

    run(scenario())


def test_e9_messages_of_encrypted_queues_arrive_decrypted_and_are_kept_encrypted():
    key = base64.b64encode(b"k" * 32).decode()

    async def scenario() -> None:
        async with world(encryption={"keys": [f"one:{key}"]}) as w:
            client = await w.connect()
            metadata = {"_enable_encrypt_messages": True}
            await client.do("queue_create", 201, queue_name="q", metadata=metadata)
            await client.subscribe()

            await w.post("a great secret")

            assert await client.bodies(1) == ["a great secret"]
            log = Address(project=PROJECT, queue="q>pushed")
            (kept,) = w.driver.messages.list(log, Selection(), now=w.clock())
            assert b"secret" not in kept.body

    run(scenario())


def test_a_connection_may_subscribe_to_several_queues_and_to_each_once():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            for queue in ("q", "r", "s"):
                await client.subscribe(queue)
            body = await client.do("subscription_create", 409, queue_name="r")
            assert body == "Subscription r not created."

            await w.post(1, queue="q")
            await w.post(2, queue="r")
            await w.post(3, queue="s")
            await w.post(4, queue="r")

            frames = [await client.pushed() for _ in range(4)]
            assert {frame["queue_name"]: frame["body"] for frame in frames if frame["body"] != 4} == {
                "q": 1,
                "r": 2,
                "s": 3,
            }
            assert [frame["body"] for frame in frames if frame["queue_name"] == "r"] == [2, 4]
            assert await client.nothing_pushed()

    run(scenario())


def test_a_subscription_is_listed_with_a_subscriber_of_its_own():
    async def scenario() -> None:
        async with world(websocket={"notification_host": "node.example.org"}) as w:
            one, other = await w.connect(), await w.connect()
            ids = {await one.subscribe(), await other.subscribe()}

            found = (await one.do("subscription_list", 200, queue_name="q"))["subscriptions"]

            assert {each["id"] for each in found} == ids
            assert all(each["confirmed"] for each in found)
            subscribers = {each["subscriber"] for each in found}
            assert len(subscribers) == 2
            assert all(each.startswith("http://node.example.org:9000/") for each in subscribers)

    run(scenario())


@pytest.mark.parametrize("politely", [True, False])
def test_subscriptions_end_with_their_connection(politely):
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect()
            await client.subscribe("q")
            await client.subscribe("r")
            stays = await other.subscribe("q")

            if politely:
                await client.close()
            else:
                client.vanish()

            await until(lambda: not w.subscriptions("r") and list(w.subscriptions("q")) == [stays])
            await w.post(1)
            assert await other.bodies(1) == [1]

    run(scenario())


def test_a_subscription_that_is_deleted_is_told_nothing_more():
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect()
            id_ = await client.subscribe()
            await other.subscribe()
            await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)

            await w.post(1)

            assert await other.bodies(1) == [1]
            assert await client.nothing_pushed()
            await client.subscribe()
            await w.post(2)
            assert await client.bodies(1) == [2]

    run(scenario())


@pytest.mark.usefixtures("often")
def test_a_subscription_that_somebody_else_deletes_is_told_nothing_more():
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect()
            id_ = await client.subscribe()
            await other.subscribe()
            await other.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            told: list[Any] = []

            async def told_nothing() -> bool:
                await w.post(len(told))
                told.append(await other.bodies(1))
                return await client.nothing_pushed()

            async with asyncio.timeout(10):
                while not await told_nothing():
                    pass
            assert await told_nothing()

    run(scenario())


@pytest.mark.usefixtures("often")
def test_a_subscription_lives_as_long_as_its_connection(hours, monkeypatch):
    monkeypatch.setattr(presence, "LEASE", 10_000)  # the clock is put on faster than signs of life come

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(ttl=60)
            address = Address(project=PROJECT, queue="q")

            for _ in range(5):
                w.clock.advance(40)
                hours(40)
                await until(lambda: w.service.subscriptions.get(address, id_).expires > w.clock() + 50_000)

            await w.post("still here")
            assert await client.bodies(1) == ["still here"]

    run(scenario())


def test_filters_choose_what_is_told():
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect()
            await client.subscribe(filter={"exact": {"kind": "wanted"}})
            await other.subscribe()

            await w.post({"kind": "other"}, {"kind": "wanted"}, "no object", {"kind": "wanted", "n": 1})

            assert len(await other.bodies(4)) == 4
            assert await client.bodies(2) == [{"kind": "wanted"}, {"kind": "wanted", "n": 1}]
            assert await client.nothing_pushed()

    run(scenario())


def test_subscribers_at_every_node_are_told():
    async def scenario() -> None:
        async with world(nodes=3) as w:
            clients = [await node.connect() for node in w.nodes for _ in range(2)]
            for client in clients:
                await client.subscribe()

            for number in range(10):
                await w.post(number)

            for client in clients:
                assert await client.bodies(10) == list(range(10))

    run(scenario())


def test_a9_tenants_are_told_of_their_own_messages_only():
    async def scenario() -> None:
        async with world() as w:
            blue, green = await w.connect(), await w.connect(project="green")
            id_ = await blue.subscribe()
            await green.subscribe()

            await w.post("for blue")
            await w.post("for green", project="green")

            assert await blue.bodies(1) == ["for blue"]
            assert await green.bodies(1) == ["for green"]
            assert await blue.nothing_pushed()
            assert await green.nothing_pushed()
            assert await green.do("subscription_get", 404, queue_name="q", subscription_id=id_)

    run(scenario())


def test_e10_who_is_connected_need_not_confirm():
    async def scenario() -> None:
        settings = {"require_confirmation": True}
        async with world(notifier=settings, signed_url={"secret_keys": ["k" * 20]}) as w:
            client = await w.connect()
            await client.subscribe()
            await w.post(1)
            assert await client.bodies(1) == [1]

    run(scenario())


def test_a_client_that_is_suddenly_gone_costs_the_others_nothing():
    async def scenario() -> None:
        async with world() as w:
            clients = [await w.connect() for _ in range(3)]
            for client in clients:
                await client.subscribe()
            clients[1].vanish()
            await w.post(1)
            assert await clients[0].bodies(1) == [1]
            assert await clients[2].bodies(1) == [1]

    run(scenario())


def test_whoever_subscribes_hears_of_what_is_posted_from_then_on():
    async def scenario() -> None:
        async with world() as w:
            first = await w.connect()
            await first.subscribe()
            await w.post("before")
            assert await first.bodies(1) == ["before"]

            late = await w.connect()
            await late.subscribe()
            await w.post("after")

            assert await late.bodies(1) == ["after"]

    run(scenario())


def test_the_log_is_no_queue_for_anybody():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe()
            await w.post("x")
            assert await client.bodies(1) == ["x"]

            found = await client.ask("message_list", queue_name="q>pushed", echo=True)
            assert found["headers"]["status"] == 400 or found["body"] == {"messages": []}, found
            names = await client.do("queue_list", 200)
            assert names == {"queues": [{"name": "q"}]}

    run(scenario())


def test_a_node_lets_go_of_queues_that_nobody_listens_to():
    async def scenario(w: World) -> None:
        client, other = await w.connect(), await w.connect()
        id_ = await client.subscribe()
        await other.subscribe()
        streams_of = w.nodes[0].node._streams
        assert len(streams_of) == 1
        await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
        await other.close()
        await until(lambda: not streams_of)
        assert not w.driver.messages._state.wakeups.watched()  # type: ignore[attr-defined]

    async def start() -> None:
        async with world(notifying=False) as w:
            await scenario(w)

    run(start())


def test_queues_may_live_in_pools_and_move(tmp_path):
    async def scenario() -> None:
        async with world(nodes=2, pooling=True) as w:
            for number in (1, 2):
                w.service.pools.put(f"p{number}", uri=f"sqlite:///{tmp_path}/{number}.db", weight=1)
            clients = [await node.connect() for node in w.nodes]
            for client in clients:
                await client.subscribe(sequence=True)
            home = Address(project=PROJECT, queue="q")
            queue = w.service.queues.find(home)
            assert queue is not None
            await w.post(1)
            assert [await client.bodies(1) for client in clients] == [[1], [1]]

            target = "p2" if queue.pool == "p1" else "p1"
            moved = await asyncio.to_thread(w.service.moving.move, home, target, stop=threading.Event())
            assert moved is not None
            await w.post(2)

            assert [await client.bodies(1) for client in clients] == [[2], [2]]

    run(scenario())
