"""A subscriber knows whether it missed something, and gets what it missed when it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import WSMsgType

from queues.errors import StoreUnavailable
from queues.models import Address
from tests import servers
from tests.acceptance.faults import Proxy
from tests.transport.websocket.live import PROJECT, Client, Document, World, run, until, world
from transport.websocket import node as node_module
from transport.websocket import streams

HOME = Address(project=PROJECT, queue="q")


async def resume(client: Client, id_: str, sequence: int, *, queue: str = "q") -> Document:
    """Go on with a subscription; return the answer."""
    answer: Document = await client.do(
        "subscription_resume", 200, queue_name=queue, subscription_id=id_, sequence=sequence
    )
    assert answer["subscription_id"] == id_
    return answer


async def numbered(client: Client, count: int) -> list[tuple[int, int, Any]]:
    """Return sequence, previous and body of the next notifications."""
    frames = [await client.notification() for _ in range(count)]
    return [(frame["sequence"], frame["previous"], frame["body"]) for frame in frames]


def counted(bodies: Sequence[Any], *, first: int = 1) -> list[tuple[int, int, Any]]:
    """Return what such bodies look like that follow each other without a gap."""
    return [(number, number - 1, body) for number, body in enumerate(bodies, first)]


def test_numbered_frames_say_where_they_stand():
    async def scenario() -> None:
        async with world() as w:
            plain, client = await w.connect(), await w.connect()
            await plain.subscribe()
            await w.post("before")
            assert await plain.bodies(1) == ["before"]
            id_ = await client.subscribe(sequence=True)

            await w.post("a", ttl=60)
            await w.post("b")

            assert await client.pushed() == {
                "body": "a",
                "ttl": 60,
                "queue_name": "q",
                "Message_Type": "Notification",
                "sequence": 1,
                "previous": 0,
                "subscription_id": id_,
            }
            assert await numbered(client, 1) == [(2, 1, "b")]

    run(scenario())


def test_heartbeats_carry_the_last_sequence():
    async def scenario() -> None:
        async with world(websocket={"heartbeat": 0.05}) as w:
            client, plain = await w.connect(), await w.connect()
            id_ = await client.subscribe(sequence=True)
            await plain.subscribe()
            beat = {"Message_Type": "Heartbeat", "queue_name": "q", "subscription_id": id_}
            assert await client.heartbeat() == {**beat, "sequence": 0, "previous": 0}

            await w.post(1, 2, 3)
            assert await client.bodies(3) == [1, 2, 3]

            assert await client.heartbeat() == {**beat, "sequence": 3, "previous": 3}
            assert await plain.bodies(3) == [1, 2, 3]
            assert await plain.nothing_pushed()  # it did not ask for heartbeats

    run(scenario())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_comes_back_gets_what_it_missed_in_order_and_then_what_is_new(elsewhere):
    async def scenario() -> None:
        async with world(nodes=2) as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post(1, 2)
            assert await client.bodies(2) == [1, 2]
            await client.close()
            for number in range(3, 250):
                await w.post(number)

            again = await w.nodes[elsewhere].connect()
            assert await resume(again, id_, 2) == {"subscription_id": id_, "sequence": 2, "gap": None}
            await until(lambda: w.told() == 249)
            await w.post(250)

            assert await numbered(again, 248) == counted(range(3, 251), first=3)
            assert await again.nothing_pushed()

    run(scenario())


def test_what_was_seen_can_be_seen_again():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post("a", "b", "c")
            assert await client.bodies(3) == ["a", "b", "c"]
            await client.close()

            again = await w.connect()
            await resume(again, id_, 0)

            assert await numbered(again, 3) == counted("abc")

    run(scenario())


def test_the_frames_have_the_encoding_in_which_the_client_came_back():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await client.close()
            await w.post("missed")

            again = await w.connect(binary=True)
            await resume(again, id_, 0)

            assert await again.bodies(1) == ["missed"]
            assert {kind for kind, _ in again.received} == {WSMsgType.BINARY}

    run(scenario())


def test_a_filter_stays_and_its_gaps_are_none():
    async def scenario() -> None:
        async with world(websocket={"heartbeat": 0.05}) as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True, filter={"exact": {"kind": "a"}})
            await w.post({"kind": "a"}, {"kind": "b"}, {"kind": "a"})
            assert await numbered(client, 2) == [(1, 0, {"kind": "a"}), (3, 1, {"kind": "a"})]
            await client.close()
            await w.post({"kind": "b"}, {"kind": "b"}, {"kind": "a"})

            again = await w.connect()
            answer = await resume(again, id_, 3)

            assert answer["gap"] is None
            assert await numbered(again, 1) == [(6, 3, {"kind": "a"})]
            await w.post({"kind": "b"})
            while (beat := await again.heartbeat())["sequence"] < 7:
                pass
            assert (beat["sequence"], beat["previous"]) == (7, 6)

    run(scenario())


def test_who_comes_back_too_late_is_told_what_is_missing():
    async def scenario() -> None:
        async with world(websocket={"retention": 30}) as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post("a", "b")
            assert await client.bodies(2) == ["a", "b"]
            await client.close()
            await w.post("c", "d")
            await until(lambda: w.told() == 4)
            w.clock.advance(20)
            await w.post("e")
            await until(lambda: w.told() == 5)
            w.clock.advance(20)

            again = await w.connect()
            answer = await resume(again, id_, 2)

            assert answer == {"subscription_id": id_, "sequence": 4, "gap": {"from": 3, "to": 4}}
            assert await numbered(again, 1) == [(5, 4, "e")]

            w.clock.advance(40)
            third = await w.connect()
            answer = await resume(third, id_, 1)
            assert answer == {"subscription_id": id_, "sequence": 5, "gap": {"from": 2, "to": 5}}
            await w.post("f")
            assert await numbered(third, 1) == [(6, 5, "f")]

    run(scenario())


def test_a_subscription_is_kept_for_its_ttl_after_its_connection():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True, ttl=60)
            await client.close()
            await until(lambda: not w.nodes[0].node._connections)
            assert list(w.subscriptions()) == [id_]
            w.clock.advance(61)

            again = await w.connect()
            await again.do("subscription_resume", 404, queue_name="q", subscription_id=id_, sequence=0)

    run(scenario())


def test_what_cannot_be_resumed_is_refused():
    async def scenario() -> None:
        async with world() as w:
            client, green = await w.connect(), await w.connect(project="green")
            plain = await client.subscribe("plain")
            id_ = await client.subscribe(sequence=True)
            await w.post(1, 2)
            assert await client.bodies(2) == [1, 2]

            async def refused(status: int, client: Client = client, **body: Any) -> None:
                wish = {"queue_name": "q", "subscription_id": id_, "sequence": 0, **body}
                await client.do("subscription_resume", status, **wish)

            await refused(404, subscription_id="no")
            await refused(404, queue_name="other")
            await refused(404, client=green)
            await refused(400, queue_name="plain", subscription_id=plain)
            await refused(400, sequence=-1)
            await refused(400, sequence=3)
            await refused(400, sequence="1")
            await w.post(3)
            assert await numbered(client, 1) == [(3, 2, 3)]

    run(scenario())


def test_a_subscription_of_others_means_cannot_be_resumed():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            wish = {"queue_name": "q", "subscriber": "https://example.org/hook"}
            made = await client.do("subscription_create", 201, **wish)
            id_ = made["subscription_id"]
            await client.do("subscription_resume", 400, queue_name="q", subscription_id=id_, sequence=0)

    run(scenario())


# --- the connection before it may still be there


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_connection_before_is_told_nothing_more_and_its_end_changes_nothing(elsewhere, monkeypatch):
    monkeypatch.setattr(node_module, "_LOOK", 0.02)

    async def scenario() -> None:
        async with world(nodes=2) as w:
            half_open = await w.connect()
            id_ = await half_open.subscribe(sequence=True)
            await w.post("a")
            assert await half_open.bodies(1) == ["a"]

            client = await w.nodes[elsewhere].connect()
            await resume(client, id_, 1)
            number = 1

            async def only_one_is_told() -> bool:
                nonlocal number
                number += 1
                await w.post(number)
                assert await numbered(client, 1) == [(number, number - 1, number)]
                return await half_open.nothing_pushed()

            async with asyncio.timeout(10):
                while not await only_one_is_told():
                    pass
            assert await only_one_is_told()
            half_open.vanish()
            await until(lambda: len(w.nodes[0].node._connections) == (0 if elsewhere else 1))

            assert list(w.subscriptions()) == [id_]
            await w.post("b")
            assert await numbered(client, 1) == [(number + 1, number, "b")]

    run(scenario())


def test_a_connection_may_resume_its_own_subscription_to_see_it_again():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post("a", "b", "c")
            assert await client.bodies(3) == ["a", "b", "c"]

            await resume(client, id_, 1)
            assert await numbered(client, 2) == [(2, 1, "b"), (3, 2, "c")]
            await w.post("d")

            assert await numbered(client, 1) == [(4, 3, "d")]
            assert await client.nothing_pushed()
            await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            await until(lambda: not w.nodes[0].node._streams)

    run(scenario())


# --- much to catch up with, and trouble on the way


def test_more_may_be_missed_than_may_wait_for_a_client():
    async def scenario() -> None:
        async with world(websocket={"send_queue": 5}) as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await client.close()
            await until(lambda: not w.nodes[0].node._connections)
            for number in range(10):
                await w.post(*range(number * 20, number * 20 + 20))
            await until(lambda: w.told() == 200)

            again = await w.connect()
            await resume(again, id_, 0)

            assert await numbered(again, 200) == counted(range(200))

    run(scenario())


def test_what_the_store_did_not_give_in_time_is_told_as_soon_as_it_does(monkeypatch):
    failures = 3

    async def scenario() -> None:
        async with world() as w:
            read, end = w.nodes[0].service.pushes.read, w.nodes[0].service.pushes.end
            left = {"read": failures, "end": 0}

            def failing(name: str, real: Any) -> Any:
                def call(*arguments: Any) -> Any:
                    if left[name]:
                        left[name] -= 1
                        raise StoreUnavailable
                    return real(*arguments)

                return call

            monkeypatch.setattr(w.nodes[0].service.pushes, "read", failing("read", read))
            monkeypatch.setattr(w.nodes[0].service.pushes, "end", failing("end", end))
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await w.post("a", "b")
            assert await numbered(client, 2) == counted("ab")
            assert left["read"] == 0
            await client.close()
            await until(lambda: not w.nodes[0].node._streams)

            again = await w.connect()
            await w.post("c")
            await until(lambda: w.told() == 3)
            left["read"] = 0
            await resume(again, id_, 1)
            assert await numbered(again, 2) == [(2, 1, "b"), (3, 2, "c")]

            # A store that fails just after the answer: nobody may be forgotten.
            await again.close()
            await until(lambda: not w.nodes[0].node._streams)
            third = await w.connect()
            third_wish = {"queue_name": "q", "subscription_id": id_, "sequence": 0}
            real_then = w.nodes[0].node.join

            async def join(member: Any) -> None:
                left["end"] = left["read"] = failures
                await real_then(member)

            monkeypatch.setattr(w.nodes[0].node, "join", join)
            await third.do("subscription_resume", 200, **third_wish)
            assert await numbered(third, 3) == counted("abc")
            assert left == {"read": 0, "end": 0}

    run(scenario())


def test_who_is_behind_by_more_than_is_kept_sees_that_something_is_missing(monkeypatch):
    """A node that cannot read for longer than messages are kept must not close the gap in silence."""
    monkeypatch.setattr(streams, "_LONGEST_PAUSE", 0.05)

    async def scenario() -> None:
        async with world(websocket={"retention": 30, "heartbeat": 0.05}) as w:
            pushes = w.nodes[0].service.pushes
            real, broken = pushes.read, False

            def read(*arguments: Any) -> Any:
                if broken:
                    raise StoreUnavailable
                return real(*arguments)

            monkeypatch.setattr(pushes, "read", read)
            client = await w.connect()
            await client.subscribe(sequence=True)
            await w.post("a")
            assert await numbered(client, 1) == [(1, 0, "a")]
            broken = True
            await w.post("b", "c")
            await until(lambda: w.told() == 3)
            w.clock.advance(40)
            broken = False
            await w.post("d")

            while (frame := await client.pushed())["Message_Type"] == "Heartbeat":
                assert frame["sequence"] == 1
            assert (frame["sequence"], frame["previous"], frame["body"]) == (4, 3, "d")

    run(scenario())


def test_a_client_that_leaves_while_it_catches_up_leaves_nothing_behind(monkeypatch):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            id_ = await client.subscribe(sequence=True)
            await client.close()
            await until(lambda: not w.nodes[0].node._streams)
            await w.post(*range(20))
            await until(lambda: w.told() == 20)
            node, pushes = w.nodes[0].node, w.nodes[0].service.pushes
            real, at_it, go_on = pushes.read, asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def read(*arguments: Any) -> Any:
                loop.call_soon_threadsafe(at_it.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
                return real(*arguments)

            again = await w.connect()
            plain_read = {"queue_name": "q", "subscription_id": id_, "sequence": 0}
            real_join = node.join

            async def join(member: Any) -> None:
                monkeypatch.setattr(pushes, "read", read)
                await real_join(member)

            monkeypatch.setattr(node, "join", join)
            await again.do("subscription_resume", 200, **plain_read)
            async with asyncio.timeout(10):
                await at_it.wait()
            await again.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            go_on.set()

            await until(lambda: not node._streams, "the stream has ended")
            assert await again.nothing_pushed()

    run(scenario())


def test_subscriptions_of_a_node_that_is_gone_end_unless_they_can_be_resumed():
    """Quirk G6: a node that is killed says nothing of its connections any more."""

    async def scenario(w: World) -> None:
        client = await w.connect()
        await client.subscribe()
        kept = await client.subscribe("r", sequence=True)
        w.clock.advance(31)
        assert not w.subscriptions()
        assert list(w.subscriptions("r")) == [kept]

    async def start() -> None:
        async with world(notifying=False) as w:
            await scenario(w)

    run(start())


async def read_on(client: Client, seen: int, count: int) -> int:
    """Read some notifications, each of which must follow what was seen; return what was seen last."""
    for _ in range(count):
        frame = await client.notification()
        assert (frame["previous"], frame["sequence"], frame["body"]) == (seen, seen + 1, seen)
        seen += 1
    return seen


def test_whatever_clients_do_they_miss_nothing(monkeypatch):
    """They come and go at two nodes, politely or not, or leave connections half open."""
    monkeypatch.setattr(node_module, "_LOOK", 0.05)
    total, crowd = 300, 12

    async def wander(w: World, chance: Random) -> None:
        client = await chance.choice(w.nodes).connect()
        id_ = await client.subscribe(sequence=True)
        seen = 0
        while seen < total:
            seen = await read_on(client, seen, min(total - seen, chance.randint(0, 30)))
            match chance.randint(0, 3):
                case 0:
                    await client.close()
                case 1:
                    client.vanish()
                case 2:
                    pass  # it seems to be there still
                case 3:
                    answer = await resume(client, id_, seen)
                    assert answer["gap"] is None
                    client._pushed.clear()  # it was told before that it begins anew
                    continue
            client = await chance.choice(w.nodes).connect()
            assert (await resume(client, id_, seen))["gap"] is None

    async def scenario() -> None:
        async with world(nodes=2) as w:
            wanderers = [asyncio.create_task(wander(w, Random(number))) for number in range(crowd)]
            await until(lambda: len(w.subscriptions()) == crowd)
            for number in range(total):
                await w.post(number)
            await asyncio.gather(*wanderers)
            assert len(w.subscriptions()) == crowd

    run(scenario())


@pytest.mark.parametrize("fault", ["refuse", "hold"])
def test_a_store_that_is_away_for_a_while_costs_nobody_a_message(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_LONGEST_PAUSE", 0.2)
    uri = servers.redis_uri(tmp_path)
    port = urlsplit(uri).port
    assert port is not None

    async def scenario(way: Proxy) -> None:
        async with world(uri.replace(f":{port}", f":{way.port}", 1), storage={"timeout": 1.0}) as w:
            client, other = await w.connect(), await w.connect()
            await client.subscribe(sequence=True)
            await other.subscribe()
            await w.post("before")
            assert await numbered(client, 1) == [(1, 0, "before")]

            await asyncio.to_thread(getattr(way, fault))
            refused = await other.ask("message_post", queue_name="q", messages=[{"body": "lost"}])
            assert refused["headers"]["status"] == 503
            await asyncio.to_thread(way.forward)

            async def posted() -> bool:
                answer = await other.ask("message_post", queue_name="q", messages=[{"body": "after"}])
                return bool(answer["headers"]["status"] == 201)

            async with asyncio.timeout(15):
                while not await posted():
                    pass
            seen, body = 1, "before"
            while body != "after":  # what was refused may have been stored all the same
                ((sequence, previous, body),) = await numbered(client, 1)
                assert (sequence, previous) == (seen + 1, seen)
                seen = sequence

    with Proxy(port) as way:
        run(scenario(way))
