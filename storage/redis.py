"""The Redis driver: one server, Sentinel, or Cluster; one script and one round trip per operation.

What each script reads and writes stands on top of it, in `storage/lua`; the keys
of a queue stand on top of `storage/lua/common.lua`. All keys of a queue carry the
hash tag of its shard, so a script never leaves one slot of a cluster.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal

from queues.errors import ClaimNotFound, ClaimNotHeld, KeyReused, MessageClaimed, QueueNotFound
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
    Popped,
    Posted,
    Selection,
    Stats,
)
from storage.redis_link import RedisLink
from storage.redis_records import RedisRecords

SHARDS = 64  # fixed: a queue's shard is part of its keys

_LOOK = 500  # messages that one call looks at when it hides those of a client
_QUEUES = 200  # queues that one call counts
_Answer = list[Any]  # what a script answered, unpacked

_CLIENT = 250  # bytes of a client id that are kept

#: Whether the body is encrypted, and when it was posted (ms).
_HEAD = struct.Struct(">?Q")


def connect(uri: str, *, timeout: float, clock: Callable[[], int] | None) -> RedisStore:
    """Open the store that a URI names; see `storage.redis_link`."""
    return RedisStore(RedisLink(uri, timeout=timeout), clock)


class RedisStore:
    """Both ports over one Redis."""

    def __init__(self, link: RedisLink, clock: Callable[[], int] | None) -> None:
        self._link = link
        self.messages = RedisMessages(link, clock or link.clock)
        self.records = RedisRecords(link)

    def close(self) -> None:
        """Close the connections."""
        self._link.close()


class RedisMessages:
    """The data plane; see `queues.ports.MessageStore`."""

    def __init__(self, link: RedisLink, clock: Callable[[], int]) -> None:
        self._link = link
        self.clock = clock

    def post(
        self,
        address: Address,
        messages: Sequence[NewMessage],
        *,
        now: int,
        once: Once | None = None,
        create: bool = False,
    ) -> Posted:
        """Append messages; see the port."""
        rows = [
            (
                _pack(message, now),
                now + message.ttl * 1000,
                now + message.delay * 1000 if message.delay else 0,
            )
            for message in messages
        ]
        key = (once.key, once.fingerprint, once.window * 1000) if once else (False, b"", 0)
        clients = {message.client_id for message in messages}
        client = _pack_client(clients.pop()) if len(clients) == 1 else False
        word, *answer = self._link.run(
            "post", self._base(address), now, create, new_generation(), *key, client, rows
        )
        if word == b"unknown":
            raise QueueNotFound
        if word == b"reused":
            raise KeyReused
        generation, first, count, repeated = answer
        ids = [message_id(place, generation.decode()) for place in range(first, first + count)]
        return Posted(ids=ids, repeated=repeated)

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return messages by id; see the port."""
        return _messages(self._settled("get", address, now, _split(ids)))

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return a page of messages; see the port."""
        marker: tuple[int, str] | bool | None = False
        if selection.marker is not None:
            marker = split_id(selection.marker)
            if marker is None:
                return []
        hidden = False if selection.hide_client is None else _pack_client(selection.hide_client)
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
            return Landmark(id=message_id(place, generation.decode()), created=_unpack_created(packed))

        return Stats(free=free, claimed=claimed, oldest=landmark(oldest), newest=landmark(newest))

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; see the port."""
        self._link.run("clear", self._base(address), False)

    def drop(self, address: Address) -> None:
        """Remove all that is known of the queue; see the port."""
        self._link.run("clear", self._base(address), True)

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what is over, shard by shard; see the port."""
        done = 0
        for shard in range(SHARDS):
            if done >= limit:
                break
            done += self._link.run("expire", self._due_key(shard), now, limit - done)[1]
        return done

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues; see the port."""
        free = claimed = 0
        for shard in range(SHARDS):
            rank = 0
            while True:
                word, *answer = self._link.run("totals", self._due_key(shard), now, rank, _QUEUES)
                if word == b"again":
                    continue
                free += answer[0]
                claimed += answer[1]
                rank += answer[2]
                if answer[2] < _QUEUES:
                    break
        return Stats(free=free, claimed=claimed)

    def durability(self) -> Durability:
        """Ask the server what it writes to disk, and when; see the port."""
        return self._link.durability()

    def _base(self, address: Address) -> str:
        """Return the key that all keys of a queue begin with; its length makes the project's end plain."""
        project = address.project.encode()
        digest = hashlib.blake2b(project + b"\0" + address.queue.encode(), digest_size=4).digest()
        shard = int.from_bytes(digest) % SHARDS
        return f"{self._link.prefix}:{{{shard}}}:{len(project)}:{address.project}:{address.queue}"

    def _due_key(self, shard: int) -> str:
        return f"{self._link.prefix}:{{{shard}}}:due"

    def _delete(
        self, address: Address, now: int, ids: Iterable[str], rule: str, claims: Sequence[str]
    ) -> None:
        word = self._word("delete", address, now, _split(ids), rule, claims)
        if word == b"claimed":
            raise MessageClaimed
        if word == b"unheld":
            raise ClaimNotHeld

    def _word(self, script: str, address: Address, now: int, *argument: object) -> bytes:
        return bytes(self._answer(script, address, now, *argument)[0])

    def _settled(self, script: str, address: Address, now: int, *argument: object) -> _Answer:
        """Run a script; return what follows its ok, nothing where there is no such thing."""
        word, *answer = self._answer(script, address, now, *argument)
        return answer if word == b"ok" else []

    def _answer(self, script: str, address: Address, now: int, *argument: object) -> _Answer:
        while True:  # each call settles a part of what is overdue, so this ends
            answer = self._link.run(script, self._base(address), now, *argument)
            if answer[0] != b"again":
                return answer


def _split(ids: Iterable[str]) -> list[tuple[int, str]]:
    return sorted({parts for id_ in ids if (parts := split_id(id_)) is not None})


def _pack_client(client_id: str) -> bytes:
    """Write a client id behind a byte that tells how: the 16 bytes of a UUID, or the text."""
    try:
        raw = bytes.fromhex(client_id)
    except ValueError:
        raw = b""
    if len(raw) == 16 and raw.hex() == client_id:
        return b"\1" + raw
    return b"\0" + client_id.encode()[:_CLIENT]


def _unpack_client(raw: bytes) -> str:
    return raw[1:].hex() if raw[:1] == b"\1" else raw[1:].decode(errors="ignore")


def _pack(message: NewMessage, now: int) -> bytes:
    client = _pack_client(message.client_id)
    head = _HEAD.pack(message.sealed, now)
    return bytes((len(client),)) + client + head + message.body


def _unpack_created(packed: bytes) -> int:
    created: int = _HEAD.unpack_from(packed, 1 + packed[0])[1]
    return created


def _messages(answer: Sequence[Any]) -> list[Message]:
    """Build messages out of an answer that begins with generation and messages."""
    if not answer:
        return []
    generation = answer[0].decode()
    return [_message(generation, *row) for row in answer[1]]


def _message(
    generation: str, place: int, packed: bytes, expires: int, lease: bytes | Literal[False]
) -> Message:
    end = 1 + packed[0]
    sealed, created = _HEAD.unpack_from(packed, end)
    count, _, claim = (lease or b"0:").partition(b":")
    return Message(
        id=message_id(place, generation),
        body=packed[end + _HEAD.size :],
        created=created,
        expires=expires,
        client_id=_unpack_client(packed[1:end]),
        sealed=sealed,
        claim_id=claim.decode() or None,
        claim_count=int(count),
    )
