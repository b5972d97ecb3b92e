"""Queues on their way into and out of memory; see `queues.ports.QueueTransfers`.

What has changed is found by looking at everything and comparing it with what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from queues.errors import MoveInterrupted
from queues.identity import message_id
from queues.models import Address, Cargo, Claim, KeptClaim, KeptMessage, KeptPost, Message, Outline
from storage.memory_queue import Entry, Kept, MemoryQueue, MemoryQueues

_Thing: TypeAlias = KeptMessage | KeptClaim | KeptPost
_Key: TypeAlias = int | str

_REMEMBERED = 3_600_000  # ms that a queue which moved away stays shut


@dataclass
class _Log:
    """What a queue that departs held at the last look, and the number of the look at which each thing changed."""

    looks: int = 0
    seen: dict[tuple[type[_Thing], _Key], tuple[_Thing | None, int]] = field(default_factory=dict)

    def look(self, queue: MemoryQueue) -> None:
        """Note what is different from the last look."""
        self.looks += 1
        there = dict(_things(queue))
        for key, (old, _) in self.seen.items():
            if old is not None and key not in there:
                self.seen[key] = (None, self.looks)
        for key, thing in there.items():
            if key not in self.seen or self.seen[key][0] != thing:
                self.seen[key] = (thing, self.looks)


class MemoryTransfers:
    """Moves queues; see the port."""

    def __init__(self, state: MemoryQueues) -> None:
        self._state = state

    def depart(self, address: Address, move: str) -> str:
        """Begin a move at its source; see the port."""
        with self._state.lock:
            queue = self._state.find(address) or self._state.queues.setdefault(address, MemoryQueue())
            if queue.move != move:
                queue.move, queue.log = move, _Log()
            return queue.generation

    def export(self, address: Address, move: str, *, cursor: str, limit: int) -> Cargo:
        """Return what has changed since the cursor; see the port."""
        with self._state.lock:
            queue = self._moving(address, move)
            log = queue.log
            if not isinstance(log, _Log):
                raise MoveInterrupted
            log.look(queue)
            since = int(cursor or 0)
            news = [(*key, thing) for key, (thing, look) in log.seen.items() if look > since]
            return Cargo(
                messages={key: thing for kind, key, thing in news if kind is KeptMessage},  # type: ignore[misc]
                claims={key: thing for kind, key, thing in news if kind is KeptClaim},  # type: ignore[misc]
                posts={key: thing for kind, key, thing in news if kind is KeptPost},  # type: ignore[misc]
                cursor=str(log.looks),
                caught_up=True,
            )

    def shut(self, address: Address, move: str) -> Outline:
        """Shut the queue; see the port."""
        with self._state.lock:
            queue = self._moving(address, move)
            queue.shut = True
            self._state.wakeups.wake(address)
            messages = [thing for _, thing in _things(queue) if isinstance(thing, KeptMessage)]
            claimed = sum(message.claim_id is not None for message in messages)
            return Outline(
                last=queue.last, subscribed=queue.subscribed, free=len(messages) - claimed, claimed=claimed
            )

    def retire(self, address: Address, move: str, *, now: int) -> None:
        """Drop what the queue holds; see the port."""
        with self._state.lock:
            queue = self._shut(address, move)
            if queue is not None:
                self._state.queues[address] = MemoryQueue(move=move, shut=True, forgotten=now + _REMEMBERED)

    def admit(self, address: Address, move: str, generation: str, *, announced: bool = False) -> None:
        """Make an empty queue that is shut; see the port."""
        with self._state.lock:
            if announced:
                self._moving(address, move)
            self._state.queues[address] = MemoryQueue(generation=generation, move=move, shut=True)

    def load(self, address: Address, move: str, cargo: Cargo) -> None:
        """Take over a cargo; see the port."""
        with self._state.lock:
            queue = self._admitted(address, move)
            for place, message in cargo.messages.items():
                queue.entries.pop(message_id(place, queue.generation), None)
                if message is not None:
                    _load_message(queue, message)
            for id_, claim in cargo.claims.items():
                queue.claims.pop(id_, None)
                if claim is not None:
                    _load_claim(queue, claim)
            for key, post in cargo.posts.items():
                queue.kept.pop(key, None)
                if post is not None:
                    queue.kept[key] = Kept(post.fingerprint, post.first, post.count, post.expires)

    def arrive(self, address: Address, move: str, outline: Outline) -> None:
        """Take over the outline; see the port."""
        with self._state.lock:
            queue = self._admitted(address, move)
            queue.last, queue.subscribed = outline.last, outline.subscribed
            queue.entries = dict(sorted(queue.entries.items()))

    def reopen(self, address: Address, move: str) -> None:
        """Open the queue again; see the port."""
        with self._state.lock:
            queue = self._state.queues.get(address)
            if queue is None or queue.move != move:
                return
            if queue.forgotten is not None:
                del self._state.queues[address]
            else:
                queue.move, queue.log, queue.shut = None, None, False

    def discard(self, address: Address, move: str) -> None:
        """Drop the queue; see the port."""
        with self._state.lock:
            if self._shut(address, move) is not None:
                del self._state.queues[address]

    def _moving(self, address: Address, move: str) -> MemoryQueue:
        queue = self._state.queues.get(address)
        if queue is None or queue.move != move or queue.forgotten is not None:
            raise MoveInterrupted
        return queue

    def _shut(self, address: Address, move: str) -> MemoryQueue | None:
        queue = self._state.queues.get(address)
        return queue if queue is not None and queue.shut and queue.move == move else None

    def _admitted(self, address: Address, move: str) -> MemoryQueue:
        queue = self._shut(address, move)
        if queue is None or queue.forgotten is not None:
            raise MoveInterrupted
        return queue


def _things(queue: MemoryQueue) -> Iterator[tuple[tuple[type[_Thing], _Key], _Thing]]:
    held: dict[str, list[int]] = {}
    for entry in queue.entries.values():
        message = entry.message
        claim_id = entry.claim.id if entry.claim and entry.claim.id in queue.claims else None
        if claim_id is not None:
            held.setdefault(claim_id, []).append(entry.place)
        kept = KeptMessage(
            place=entry.place,
            body=message.body,
            created=message.created,
            expires=message.expires,
            visible=entry.ready,
            client_id=message.client_id,
            sealed=message.sealed,
            claim_id=claim_id,
            claim_count=message.claim_count,
        )
        yield (KeptMessage, entry.place), kept
    for claim in queue.claims.values():
        places = held.get(claim.id, [])
        yield (
            (KeptClaim, claim.id),
            KeptClaim(
                id=claim.id, ttl=claim.ttl, renewed=claim.renewed, expires=claim.expires, places=places
            ),
        )
    for key, post in queue.kept.items():
        yield (
            (KeptPost, key),
            KeptPost(
                key=key,
                fingerprint=post.fingerprint,
                first=post.first,
                count=post.count,
                expires=post.expires,
            ),
        )


def _load_message(queue: MemoryQueue, kept: KeptMessage) -> None:
    id_ = message_id(kept.place, queue.generation)
    message = Message(
        id=id_,
        body=kept.body,
        created=kept.created,
        expires=kept.expires,
        client_id=kept.client_id,
        sealed=kept.sealed,
        claim_count=kept.claim_count,
    )
    claim = None
    if kept.claim_id is not None:
        # It may be on its way still.
        claim = queue.claims.get(kept.claim_id) or Claim(id=kept.claim_id, ttl=0, renewed=0, expires=0)
    queue.entries[id_] = Entry(place=kept.place, message=message, ready=kept.visible, claim=claim)


def _load_claim(queue: MemoryQueue, kept: KeptClaim) -> None:
    claim = Claim(id=kept.id, ttl=kept.ttl, renewed=kept.renewed, expires=kept.expires)
    queue.claims[kept.id] = claim
    for entry in queue.held(claim):
        entry.claim = claim
