"""Queues on their way into and out of Redis; see `queues.ports.QueueTransfers`."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from queues.errors import MoveInterrupted, QueueMoved
from queues.identity import new_generation
from queues.models import Address, Cargo, KeptClaim, KeptMessage, KeptPost, Outline
from storage.redis_keys import base_key
from storage.redis_link import RedisLink
from storage.redis_values import pack_message, unpack_message

_PARTS: Final = {"claims": "messages", "messages": "posts", "posts": "touched"}  # what follows what
_REMEMBERED = 3600  # seconds that a queue which moved away stays shut


class RedisTransfers:
    """Moves queues; see the port."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def depart(self, address: Address, move: str) -> str:
        """Begin a move at its source; see the port."""
        word, found = self._run("depart", address, move, new_generation())
        if word == b"moved":
            raise QueueMoved(address, found.decode())
        generation: str = found.decode()
        return generation

    def export(self, address: Address, move: str, *, cursor: str, limit: int) -> Cargo:
        """Return a part of the queue: claims, messages, posts, then what was touched; see the port."""
        part, _, position = (cursor or "claims:0").partition(":")
        following, messages, claims, posts = self._answer("export", address, move, part, position, limit)
        caught_up = False
        if part == "touched":
            # Not only when nothing follows: in a busy queue something always does.
            caught_up = len(messages) + len(claims) + len(posts) < limit
            position = following.decode() if following else position
        else:
            position = following.decode()
            if position == "0":
                part = _PARTS[part]
        return Cargo(
            messages={place: _message(place, kept) if kept else None for place, kept in messages},
            claims={id_.decode(): _claim(id_.decode(), kept) if kept else None for id_, kept in claims},
            posts={key.decode(): _post(key.decode(), kept) if kept else None for key, kept in posts},
            cursor=f"{part}:{position}",
            caught_up=caught_up,
        )

    def shut(self, address: Address, move: str) -> Outline:
        """Shut the queue; see the port."""
        last, subscribed, free, claimed = self._answer("shut", address, move)
        return Outline(last=last, subscribed=subscribed.decode(), free=free, claimed=claimed)

    def retire(self, address: Address, move: str, *, now: int) -> None:
        """Drop what the queue holds; see the port."""
        self._run("leave", address, move, "retire", _REMEMBERED)

    def admit(self, address: Address, move: str, generation: str, *, announced: bool = False) -> None:
        """Make an empty queue that is shut; see the port."""
        self._answer("admit", address, move, generation, announced)

    def load(self, address: Address, move: str, cargo: Cargo) -> None:
        """Take over a cargo; see the port."""
        messages = [(place, *_loaded(kept)) for place, kept in cargo.messages.items()]
        claims = [
            (
                id_,
                *((_packed(kept.ttl, kept.renewed, kept.expires, kept.places), kept.expires) if kept else ()),
            )
            for id_, kept in cargo.claims.items()
        ]
        posts = [
            (
                key,
                *(
                    (_packed(post.fingerprint, post.first, post.count, post.expires), post.expires)
                    if post
                    else ()
                ),
            )
            for key, post in cargo.posts.items()
        ]
        self._answer("load", address, move, messages, claims, posts)

    def arrive(self, address: Address, move: str, outline: Outline) -> None:
        """Take over the outline; see the port."""
        self._answer("arrive", address, move, outline.last, outline.subscribed)

    def reopen(self, address: Address, move: str) -> None:
        """Open the queue again; see the port."""
        self._run("leave", address, move, "reopen", 0)

    def discard(self, address: Address, move: str) -> None:
        """Drop the queue; see the port."""
        self._run("leave", address, move, "discard", 0)

    def _run(self, script: str, address: Address, *argument: object) -> list[Any]:
        return self._link.run(script, base_key(self._link.prefix, address), *argument)

    def _answer(self, script: str, address: Address, *argument: object) -> list[Any]:
        word, *answer = self._run(script, address, *argument)
        if word != b"ok":
            raise MoveInterrupted
        return answer


def _packed(*values: object) -> bytes:
    return bytes(msgpack.packb(values, use_bin_type=False))


def _loaded(kept: KeptMessage | None) -> tuple[object, ...]:
    if kept is None:
        return ()
    packed = pack_message(kept.client_id, kept.created, kept.body, sealed=kept.sealed)
    return packed, kept.expires, kept.claim_count, kept.claim_id or "", kept.visible


def _message(place: int, kept: Any) -> KeptMessage:  # noqa: ANN401 - as it is unpacked
    packed, expires, lease, visible = kept
    message = unpack_message("", place, packed, expires, lease)
    return KeptMessage(
        place=place,
        body=message.body,
        created=message.created,
        expires=message.expires,
        visible=visible,
        client_id=message.client_id,
        sealed=message.sealed,
        claim_id=message.claim_id,
        claim_count=message.claim_count,
    )


def _claim(id_: str, packed: bytes) -> KeptClaim:
    ttl, renewed, expires, places = msgpack.unpackb(packed, raw=True)
    return KeptClaim(
        id=id_, ttl=ttl, renewed=renewed, expires=expires, places=[int(place) for place in places]
    )


def _post(key: str, packed: bytes) -> KeptPost:
    fingerprint, first, count, expires = msgpack.unpackb(packed, raw=True)
    return KeptPost(key=key, fingerprint=fingerprint, first=first, count=count, expires=expires)
