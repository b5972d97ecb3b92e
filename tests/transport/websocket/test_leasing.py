"""Messages leased to a connection: as many as it has credit for, and given back when it closes."""

from __future__ import annotations

import asyncio
import base64
from random import Random
from typing import Any

import pytest

from queues.errors import StoreUnavailable
from queues.models import Address
from queues.service import claims
from tests.transport.websocket.live import PROJECT, Client, Document, World, hold, run, until, world
from transport.websocket import leases

HOME = Address(project=PROJECT, queue="q")


async def leased(client: Client, count: int) -> list[Document]:
    """Return the next frames, which lease messages."""
    frames = [await client.pushed() for _ in range(count)]
    assert all(frame["Message_Type"] == "Claim" for frame in frames)
    return frames


def bodies(frames: list[Document]) -> list[Any]:
    return [frame["message"]["body"] for frame in frames]


async def ack(client: Client, frame: Document, status: int = 204) -> None:
    """Be done with a message."""
    message_id, claim_id = frame["message"]["id"], frame["claim_id"]
    await client.do("message_delete", status, queue_name="q", message_id=message_id, claim_id=claim_id)


async def give_back(client: Client, frame: Document) -> None:
    await client.do("claim_delete", 204, queue_name="q", claim_id=frame["claim_id"])


@pytest.mark.parametrize("binary", [False, True], ids=["json", "msgpack"])
def test_a_lease_is_a_frame_with_these_members(binary):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect(binary=binary)
            id_ = await client.subscribe(mode="claim", claim_ttl=90)
            (message_id,) = await w.post({"n": [1, None]}, ttl=600)

            frame = await client.pushed()

            claim_id = frame.pop("claim_id")
            assert frame == {
                "Message_Type": "Claim",
                "queue_name": "q",
                "subscription_id": id_,
                "claim_ttl": 90,
                "message": {
                    "id": message_id,
                    "ttl": 600,
                    "age": 0,
                    "claim_count": 1,
                    "body": {"n": [1, None]},
                },
            }
            assert client.received[-1][0].name == ("BINARY" if binary else "TEXT")
            found = await client.do("claim_get", 200, queue_name="q", claim_id=claim_id)
            assert [message["id"] for message in found["messages"]] == [message_id]

    run(scenario())


def test_no_more_is_leased_than_there_is_credit_for():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim", credit=2)
            await w.post(1, 2, 3, 4, 5)

            frames = await leased(client, 2)
            assert bodies(frames) == [1, 2]
            assert await client.nothing_pushed()
            assert w.free() == 3

            await ack(client, frames[1])
            assert bodies(await leased(client, 1)) == [3]
            await ack(client, frames[0])
            assert bodies(await leased(client, 1)) == [4]
            assert await client.nothing_pushed()

    run(scenario())


def test_what_is_given_back_comes_again_first():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim", credit=1)
            await w.post("a", "b")
            (frame,) = await leased(client, 1)
            await give_back(client, frame)
            (again,) = await leased(client, 1)
            assert again["message"]["body"] == "a"
            assert again["message"]["claim_count"] == 2
            assert again["claim_id"] != frame["claim_id"]
            await ack(client, frame, status=400)  # the lease before is over
            assert await client.nothing_pushed()  # and gave no credit
            await ack(client, again)
            assert bodies(await leased(client, 1)) == ["b"]

    run(scenario())


def test_every_message_is_leased_to_one_connection_at_a_time():
    async def scenario() -> None:
        async with world(nodes=2) as w:
            clients = [await node.connect() for node in w.nodes for _ in range(3)]
            for client in clients:
                await client.subscribe(mode="claim", credit=3)

            async def consume(client: Client, done: list[Any]) -> None:
                while True:
                    (frame,) = await leased(client, 1)
                    await ack(client, frame)
                    done.append(frame["message"]["body"])

            done: list[Any] = []
            consumers = [asyncio.create_task(consume(client, done)) for client in clients]
            for number in range(0, 100, 5):
                await w.post(*range(number, number + 5))
            await until(lambda: len(done) >= 100)
            for consumer in consumers:
                consumer.cancel()
            await asyncio.gather(*consumers, return_exceptions=True)
            assert sorted(done) == list(range(100))
            assert w.service.queues.stats(HOME)[0].total == 0

    run(scenario())


@pytest.mark.parametrize("end", ["close", "vanish", "unsubscribe"])
def test_what_was_not_settled_is_given_back_at_once(end):
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect()
            id_ = await client.subscribe(mode="claim", credit=2)
            await w.post(1, 2, 3)
            frames = await leased(client, 2)
            await ack(client, frames[0])
            await leased(client, 1)

            match end:
                case "close":
                    await client.close()
                case "vanish":
                    client.vanish()
                case "unsubscribe":
                    body = await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
                    assert body == f"Subscription {id_} removed."

            await until(lambda: w.free() == 2)
            await other.subscribe(mode="claim")
            again = await leased(other, 2)
            assert bodies(again) == [2, 3]
            assert [frame["message"]["claim_count"] for frame in again] == [2, 2]

    run(scenario())


def test_a_lease_that_ends_gives_credit_back(monkeypatch):
    monkeypatch.setattr(claims, "MIN_TTL", 1)

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim", credit=1, claim_ttl=1, claim_grace=60)
            await w.post("a", "b")
            (first,) = await leased(client, 1)

            (again,) = await leased(client, 1)

            assert bodies([first, again]) == ["a", "a"]
            assert again["message"]["claim_count"] == 2
            await ack(client, again)
            assert bodies(await leased(client, 1)) == ["b"]

    run(scenario())


def test_a_lease_that_is_renewed_does_not_end(monkeypatch):
    monkeypatch.setattr(claims, "MIN_TTL", 1)

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim", credit=2, claim_ttl=1, claim_grace=60)
            await w.post("kept", "let go", "next")
            kept, lost = await leased(client, 2)
            await client.do("claim_update", 204, queue_name="q", claim_id=kept["claim_id"], ttl=60, grace=60)

            (again,) = await leased(client, 1)

            assert again["message"]["id"] == lost["message"]["id"]
            assert await client.nothing_pushed()
            await ack(client, kept)
            assert bodies(await leased(client, 1)) == ["next"]

    run(scenario())


def test_delayed_messages_are_leased_when_they_are_due():
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            await client.subscribe(mode="claim")
            start = asyncio.get_running_loop().time()
            await w.post("late", delay=1)
            assert bodies(await leased(client, 1)) == ["late"]
            assert asyncio.get_running_loop().time() - start >= 0.99

    run(scenario())


def test_encrypted_messages_are_leased_decrypted():
    key = base64.b64encode(b"k" * 32).decode()

    async def scenario() -> None:
        async with world(encryption={"keys": [f"one:{key}"]}) as w:
            client = await w.connect()
            await client.do("queue_create", 201, queue_name="q", metadata={"_enable_encrypt_messages": True})
            await client.subscribe(mode="claim")
            await w.post("a great secret")
            assert bodies(await leased(client, 1)) == ["a great secret"]

    run(scenario())


def test_they_are_told_to_nobody_and_listed_nowhere():
    async def scenario() -> None:
        async with world() as w:
            client, other = await w.connect(), await w.connect(project="green")
            id_ = await client.subscribe(mode="claim")
            assert await client.do("subscription_list", 200, queue_name="q") == {"subscriptions": []}
            await other.subscribe(mode="claim")
            await w.post(1)
            assert bodies(await leased(client, 1)) == [1]
            assert await other.nothing_pushed()
            assert w.told() == 0
            await other.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            await w.post(2)
            assert bodies(await leased(client, 1)) == [2]

    run(scenario())


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "steal"},
        {"mode": 1},
        {"mode": "claim", "credit": 0},
        {"mode": "claim", "credit": 1001},
        {"mode": "claim", "credit": "many"},
        {"mode": "claim", "credit": True},
        {"mode": "claim", "claim_ttl": 59},
        {"mode": "claim", "claim_grace": 59},
        {"mode": "claim", "claim_ttl": 10**9},
    ],
)
def test_wrong_terms_are_refused(options):
    async def scenario() -> None:
        async with world(notifying=False) as w:
            client = await w.connect()
            await client.do("subscription_create", 400, queue_name="q", options=options)

    run(scenario())


def test_a_reader_is_leased_nothing():
    async def scenario() -> None:
        async with world(notifying=False, access={"claims:create": "admin"}) as w:
            client = await w.connect()
            await client.do("subscription_create", 403, queue_name="q", options={"mode": "claim"})

    run(scenario())


def test_what_is_leased_just_when_the_client_goes_is_given_back(monkeypatch):
    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            called, go_on = hold(monkeypatch, w.nodes[0].service.claims, "create", after=True)
            await w.post(1)
            await client.subscribe(mode="claim")
            await called()
            assert w.free() == 0
            client.vanish()
            await until(lambda: not w.nodes[0].node._connections)
            go_on()
            await until(lambda: w.free() == 1)

    run(scenario())


def test_a_store_that_fails_is_asked_again(monkeypatch):
    monkeypatch.setattr(leases, "_PAUSE", 0.01)

    async def scenario() -> None:
        async with world() as w:
            client = await w.connect()
            service = w.nodes[0].service.claims
            real, failures = service.create, 3

            def create(*arguments: Any, **named: Any) -> Any:
                nonlocal failures
                if failures:
                    failures -= 1
                    raise StoreUnavailable
                return real(*arguments, **named)

            monkeypatch.setattr(service, "create", create)
            await w.post(1)
            await client.subscribe(mode="claim")
            assert bodies(await leased(client, 1)) == [1]
            assert not failures

    run(scenario())


async def work(w: World, chance: Random, done: list[Any], total: int) -> None:
    """Be done with messages, give them back, or come and go with some in hand."""
    credit, held = 3, list[Document]()
    client = await chance.choice(w.nodes).connect()
    id_ = await client.subscribe(mode="claim", credit=credit)
    while len(done) < total:
        if len(held) < credit and (not held or chance.random() < 0.5):
            held += await leased(client, 1)
        frame = held.pop(chance.randrange(len(held)))
        match chance.randint(0, 9):
            case 0:
                await give_back(client, frame)
                continue
            case 1:
                client.vanish()
            case 2:
                await client.close()
            case 3:
                await client.do("subscription_delete", 204, queue_name="q", subscription_id=id_)
            case _:
                await ack(client, frame)
                done.append(frame["message"]["body"])
                continue
        held.clear()
        client = await chance.choice(w.nodes).connect()
        id_ = await client.subscribe(mode="claim", credit=credit)


def test_whatever_clients_do_every_message_is_done_once():
    total = 200

    async def scenario() -> None:
        async with world(nodes=2, notifying=False) as w:
            done: list[Any] = []
            workers = [asyncio.create_task(work(w, Random(number), done, total)) for number in range(6)]
            for number in range(total):
                await w.post(number)
            await until(lambda: len(done) >= total or any(worker.done() for worker in workers))
            for worker in workers:
                worker.cancel()
            ends = await asyncio.gather(*workers, return_exceptions=True)
            assert not [end for end in ends if isinstance(end, Exception)]
            assert sorted(done) == list(range(total))

    run(scenario())


def test_a_lease_that_nobody_could_give_back_ends_by_itself(monkeypatch):
    """As it does where a node is killed."""

    async def scenario() -> None:
        async with world(nodes=2) as w:
            client = await w.connect()
            await client.subscribe(mode="claim", claim_ttl=60)
            await w.post("a")
            await leased(client, 1)

            def fail(*_: object, **__: object) -> None:
                raise StoreUnavailable

            monkeypatch.setattr(w.nodes[0].service.claims, "release", fail)
            client.vanish()
            await until(lambda: not w.nodes[0].node._connections)
            assert w.free() == 0
            w.clock.advance(60)
            other = await w.nodes[1].connect()
            await other.subscribe(mode="claim")
            (again,) = await leased(other, 1)
            assert (again["message"]["body"], again["message"]["claim_count"]) == ("a", 2)

    run(scenario())
