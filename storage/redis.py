"""The Redis driver: one server, Sentinel, or Cluster; one script and one round trip per operation.

What each script reads and writes stands on top of it, in `storage/lua`; the keys
of a queue stand on top of `storage/lua/common.lua`. All keys of a queue carry the
hash tag of its shard, so a script never leaves one slot of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from queues.errors import (
    ClaimNotFound,
    ClaimNotHeld,
    FanOutChanged,
    KeyReused,
    MessageClaimed,
    QueueMoved,
    QueueNotFound,
)
from queues.identity import message_id, new_claim_id, new_generation, split_id
from queues.models import (
    Address,
    Claim,
    Claimed,
    Durability,
    Landmark,
    Lease,
    Message,
    NewMessage,
    Once,
    Outlook,
    Popped,
    Posted,
    Selection,
    Stats,
)
from queues.versions import too_new
from storage.redis_keys import SHARDS, base_key, due_key, outbox, shard_of
from storage.redis_layout import RedisLayout
from storage.redis_link import RedisLink
from storage.redis_listener import RedisListener
from storage.redis_records import RedisRecords
from storage.redis_transfers import RedisTransfers
from storage.redis_values import created_of, pack_client, pack_message, unpack_message

_LOOK = 500  # messages that one call looks at when it hides those of a client
_QUEUES = 200  # queues that one call counts
_Answer = list[Any]  # what a script answered, unpacked


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> RedisStore:
    """Open the store that a URI names; see `storage.redis_link`."""
    return RedisStore(RedisLink(uri, timeout=timeout), clock)


class RedisStore:
    """Both ports over one Redis."""

    # Not DURABILITY: that depends on how the server is set up; `hermod check` tells.
    capabilities = ("FIFO", "CLAIMS", "AOD", "HIGH_THROUGHPUT")

    def __init__(self, link: RedisLink, clock: Callable[[], int] | None) -> None:
        self._link = link
        self._listener = RedisListener(link)
        self.transfers = RedisTransfers(link)
        self.messages = RedisMessages(link, clock or link.clock, self._listener)
        self.records = RedisRecords(link)
        self.layout = RedisLayout(link)

    def close(self) -> None:
        """End the thread that listens, and close the connections."""
        self._listener.close()
        self._link.close()


class RedisMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, link: RedisLink, clock: Callable[[], int], listener: RedisListener) -> None:
        self._link = link
        self.clock = clock
        self.watch = listener.watch

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
        tickets: Sequence[NewMessage] | None = (),
    ) -> Posted:
        """Append messages; see the port."""
        key = (once.key, once.fingerprint, once.window * 1000) if once else (False, b"", 0)
        clients = {message.client_id for message in messages}
        client = pack_client(clients.pop()) if len(clients) == 1 else False
        box: tuple[object, ...] = (tickets is not None and (),)
        if tickets:
            where = outbox(shard_of(address) if self._link.clustered else 0)
            box = (_rows(tickets, now), self._base(where), new_generation())
        rows = _rows(messages, now)
        word, *answer = self._answer("post", address, now, create, new_generation(), *key, client, rows, *box)
        if word == b"unknown":
            raise QueueNotFound
        if word == b"reused":
            raise KeyReused
        if word == b"fan":
            raise FanOutChanged(subscribed=answer[0])
        generation, first, count, repeated = answer
        ids = [message_id(place, generation.decode()) for place in range(first, first + count)]
        return Posted(ids=ids, repeated=repeated)

    def subscribe(self, address: Address, stamp: str) -> None:
        """Note that there are subscribers; see the port."""
        self._answer("subscribe", address, new_generation(), stamp)

    def unsubscribe(self, address: Address, stamp: str) -> None:
        """Note that there are no subscribers; see the port."""
        self._answer("unsubscribe", address, stamp)

    def outboxes(self) -> Sequence[Address]:
        """Return the one there is, or, in a cluster, that of each shard; see the port."""
        return [outbox(shard) for shard in range(SHARDS if self._link.clustered else 1)]

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""
        return _messages(self._settled("get", address, now, _split(ids)))

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""
        marker: tuple[int, str] | bool | None = False
        if selection.marker is not None:
            marker = split_id(selection.marker) or (0, "")  # which is of no queue
        hidden = False if selection.hide_client is None else pack_client(selection.hide_client)
        found: list[Message] = []
        while True:
            limit = selection.limit - len(found)
            answer = self._settled(
                "list",
                address,
                now,
                marker,
                limit,
                hidden,
                selection.include_claimed,
                selection.include_delayed,
                limit if hidden is False else _LOOK,
            )
            found += _messages(answer)
            if not answer or not answer[2] or len(found) >= selection.limit:
                return found
            marker = (answer[2], answer[0].decode())

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message; see the port."""
        self._delete(address, now, [message_id], "one", [] if claim_id is None else [claim_id])

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete messages by id; see the port."""
        rule = "any" if claim_ids is None else "covered"
        self._delete(address, now, ids, rule, list(claim_ids or ()))

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first messages that are free; see the port."""
        answer = self._settled("pop", address, now, limit)
        return Popped(messages=_messages(answer), sealed_next=bool(answer and answer[2]))

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free; see the port."""
        dead: tuple[str, int, int, str] | bool = False
        if lease.dead_letter is not None and lease.dead_letter.address != address:
            expiry = 0 if lease.dead_letter.ttl is None else now + lease.dead_letter.ttl * 1000
            target = self._base(lease.dead_letter.address)
            dead = (target, lease.dead_letter.max_claims, expiry, new_generation())
        id_, until = new_claim_id(), now + lease.ttl * 1000
        buried = 0
        while True:
            terms = (id_, lease.limit, lease.ttl, until, lease.grace * 1000, dead)
            word, *answer = self._link.run("claim", self._base(address), now, *terms)
            if word == b"moved":
                shut = lease.dead_letter.address if len(answer) > 1 and lease.dead_letter else address
                raise QueueMoved(shut, answer[0].decode())
            if word == b"newer":
                raise too_new(answer[0])
            if word == b"unknown":
                return Claimed(claim=None)
            buried += answer[2] if answer else 0
            if word != b"again":
                break
        messages = _messages(answer)
        claim = Claim(id=id_, ttl=lease.ttl, renewed=now, expires=until, messages=messages)
        return Claimed(claim=claim if messages else None, dead_lettered=buried)

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim; see the port."""
        answer = self._settled("read_claim", address, now, claim_id)
        if not answer:
            raise ClaimNotFound
        _, _, ttl, renewed, expires = answer
        return Claim(id=claim_id, ttl=ttl, renewed=renewed, expires=expires, messages=_messages(answer))

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew; see the port."""
        until = now + lease.ttl * 1000
        word = self._word("renew", address, now, claim_id, lease.ttl, until, lease.grace * 1000)
        if word != b"ok":
            raise ClaimNotFound

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim; see the port."""
        self._word("release", address, now, claim_id)

    def outlook(self, address: Address, *, now: int) -> Outlook:
        """Return what is to come; see the port."""
        answer = self._settled("outlook", address, now)
        if not answer:
            return Outlook()
        generation, last, due = answer
        return Outlook(generation=generation.decode(), last=last, due=due or None)

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue; see the port."""
        answer = self._settled("stats", address, now)
        if not answer:
            return Stats()
        generation, free, claimed, oldest, newest = answer

        def landmark(end: Any) -> Landmark | None:  # noqa: ANN401 - as it is unpacked
            if not end:
                return None
            place, packed = end
            return Landmark(id=message_id(place, generation.decode()), created=created_of(packed))

        return Stats(free=free, claimed=claimed, oldest=landmark(oldest), newest=landmark(newest))

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""
        self._answer("clear", address, False)

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""
        self._link.run("clear", self._base(address), True)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over, shard by shard; see the port."""
        done = 0
        for shard in range(SHARDS):
            if done >= limit:
                break
            done += self._link.run("expire", due_key(self._link.prefix, shard), now, limit - done)[1]
        return done

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        free = claimed = 0
        for shard in range(SHARDS):
            rank = 0
            while True:
                word, *answer = self._link.run(
                    "totals", due_key(self._link.prefix, shard), now, rank, _QUEUES
                )
                if word == b"again":
                    continue
                free += answer[0]
                claimed += answer[1]
                rank += answer[2]
                if answer[2] < _QUEUES:
                    break
        return Stats(free=free, claimed=claimed)

    def joins(self, one: Address, other: Address) -> bool:
        """Tell whether both are on one server; in a cluster a shard is the most that surely is. See the port."""
        return not self._link.clustered or shard_of(one) == shard_of(other)

    def durability(self) -> Durability:
        """Ask the server what it writes to disk, and when; see the port."""
        return self._link.durability()

    def _base(self, address: Address) -> str:
        return base_key(self._link.prefix, address)

    def _delete(
        self, address: Address, now: int, ids: Iterable[str], rule: str, claims: Sequence[str]
    ) -> None:
        word = self._word("delete", address, now, _split(ids), rule, claims)
        if word == b"claimed":
            raise MessageClaimed
        if word == b"unheld":
            raise ClaimNotHeld

    def _word(self, script: str, address: Address, *argument: object) -> bytes:
        return bytes(self._answer(script, address, *argument)[0])

    def _settled(self, script: str, address: Address, *argument: object) -> _Answer:
        """Run a script; return what follows its ok, nothing where there is no such thing."""
        word, *answer = self._answer(script, address, *argument)
        return answer if word == b"ok" else []

    def _answer(self, script: str, address: Address, *argument: object) -> _Answer:
        while True:  # each call settles a part of what is overdue, so this ends
            answer = self._link.run(script, self._base(address), *argument)
            if answer[0] == b"moved":
                raise QueueMoved(address, answer[1].decode())
            if answer[0] == b"newer":
                raise too_new(answer[1])
            if answer[0] != b"again":
                return answer


def _rows(messages: Sequence[NewMessage], now: int) -> list[tuple[bytes, int, int]]:
    """Return messages as the script takes them."""
    return [
        (
            pack_message(message.client_id, life.created, message.body, sealed=message.sealed),
            life.expires,
            now + message.delay * 1000 if message.delay else 0,
        )
        for message in messages
        for life in (message.life_from(now),)
    ]


def _split(ids: Iterable[str]) -> list[tuple[int, str]]:
    return sorted({parts for id_ in ids if (parts := split_id(id_)) is not None})


def _messages(answer: Sequence[Any]) -> list[Message]:
    """Build messages out of an answer that begins with generation and messages."""
    if not answer:
        return []
    generation = answer[0].decode()
    return [unpack_message(generation, *row) for row in answer[1]]
