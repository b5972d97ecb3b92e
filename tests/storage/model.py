"""A plain model of the message store, written apart from every driver.

Unlike a driver it lets time happen: whenever its time moves, what is over is
taken out at once, so that everything left is as it seems. Ids come from the store
under test; the model only knows in which order they must be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from queues.errors import ClaimNotFound, ClaimNotHeld, KeyReused, MessageClaimed, QueueNotFound
from queues.models import Address, Claim, Landmark, Lease, Message, NewMessage, Once, Popped, Selection, Stats


@dataclass
class Held:
    """A queue: its messages in order, and every id that it ever gave."""

    messages: list[Message] = field(default_factory=list)
    ready: dict[str, int] = field(default_factory=dict)  # by id; ms at which the delay is over
    issued: list[str] = field(default_factory=list)
    keys: dict[str, tuple[bytes, Sequence[str], int]] = field(default_factory=dict)


@dataclass
class Model:
    """All queues at one time."""

    now: int  # ms
    queues: dict[Address, Held] = field(default_factory=dict)
    claims: dict[Address, dict[str, Claim]] = field(default_factory=dict)  # live ones, without messages

    def held(self, address: Address) -> Held:
        return self.queues.get(address, Held())

    def leases(self, address: Address) -> dict[str, Claim]:
        return self.claims.get(address, {})

    def moments(self) -> list[int]:
        """Return all points in time at which something will happen."""
        found = {claim.expires for claims in self.claims.values() for claim in claims.values()}
        for held in self.queues.values():
            found |= {message.expires for message in held.messages}
            found |= {held.ready[message.id] for message in held.messages}
            found |= {until for _, _, until in held.keys.values()}
        return sorted(moment for moment in found if moment > self.now)

    def move_to(self, now: int) -> None:
        """Let time pass."""
        self.now = now
        for address, held in self.queues.items():
            live = {id_: claim for id_, claim in self.leases(address).items() if claim.expires > now}
            self.claims[address] = live
            held.messages = [
                message if message.claim_id in live else msgspec.structs.replace(message, claim_id=None)
                for message in held.messages
                if message.expires > now
            ]
            held.keys = {key: kept for key, kept in held.keys.items() if kept[2] > now}

    def recall(self, address: Address, once: Once | None, *, create: bool) -> Sequence[str] | None:
        """Return the ids that a repeated post must answer; None for a post that is new."""
        if address not in self.queues and not create:
            raise QueueNotFound
        if once is None or once.key not in self.held(address).keys:
            return None
        fingerprint, ids, _ = self.held(address).keys[once.key]
        if fingerprint != once.fingerprint:
            raise KeyReused
        return ids

    def post(
        self, address: Address, batch: Sequence[NewMessage], ids: Sequence[str], once: Once | None
    ) -> None:
        held = self.queues.setdefault(address, Held())
        for new, id_ in zip(batch, ids, strict=True):
            message = Message(
                id=id_,
                body=new.body,
                created=self.now,
                expires=self.now + new.ttl * 1000,
                client_id=new.client_id,
                sealed=new.sealed,
            )
            self.append(held, message, self.now + new.delay * 1000)
        if once is not None:
            held.keys[once.key] = (once.fingerprint, ids, self.now + once.window * 1000)

    def append(self, held: Held, message: Message, ready: int) -> None:
        assert message.id > max(held.issued, default=""), "a new message belongs at the end"
        held.messages.append(message)
        held.ready[message.id] = ready
        held.issued.append(message.id)

    def free(self, address: Address) -> list[Message]:
        held = self.held(address)
        return [m for m in held.messages if m.claim_id is None and held.ready[m.id] <= self.now]

    def page(self, address: Address, selection: Selection) -> list[Message]:
        held = self.held(address)
        if selection.marker is not None and selection.marker not in held.issued:
            return []
        shown = [message for message in held.messages if message.id > (selection.marker or "")]
        if not selection.include_claimed:
            shown = [message for message in shown if message.claim_id is None]
        if not selection.include_delayed:
            shown = [message for message in shown if held.ready[message.id] <= self.now]
        if selection.hide_client is not None:
            shown = [message for message in shown if message.client_id != selection.hide_client]
        return shown[: selection.limit]

    def stats(self, address: Address) -> Stats:
        messages = self.held(address).messages
        ends = [Landmark(id=message.id, created=message.created) for message in messages]
        claimed = len([message for message in messages if message.claim_id is not None])
        return Stats(
            free=len(messages) - claimed,
            claimed=claimed,
            oldest=ends[0] if ends else None,
            newest=ends[-1] if ends else None,
        )

    def next_moment(self, address: Address) -> int | None:
        """Return when something of a queue falls due, claims without a message left aside."""
        held = self.held(address)
        found = {held.ready[message.id] for message in held.messages}
        for message in held.messages:
            found.add(message.expires)
            if message.claim_id is not None:
                found.add(self.leases(address)[message.claim_id].expires)
        return min((moment for moment in found if moment > self.now), default=None)

    def forget(self, address: Address, ids: Collection[str]) -> None:
        held = self.held(address)
        held.messages = [message for message in held.messages if message.id not in ids]

    def delete(self, address: Address, id_: str, claim_id: str | None) -> None:
        for message in self.held(address).messages:
            if message.id != id_:
                continue
            if message.claim_id != claim_id:
                living = claim_id is None or claim_id in self.leases(address)
                raise MessageClaimed if message.claim_id is not None and living else ClaimNotHeld
            self.forget(address, [id_])

    def delete_many(self, address: Address, ids: Collection[str], claim_ids: Collection[str] | None) -> None:
        if claim_ids is not None:
            for message in self.held(address).messages:
                if message.id in ids and message.claim_id not in {None, *claim_ids}:
                    raise MessageClaimed
        self.forget(address, ids)

    def pop(self, address: Address, limit: int) -> Popped:
        taken: list[Message] = []
        sealed_next = False
        for message in self.free(address)[:limit]:
            sealed_next = sealed_next or message.sealed
            if not sealed_next:
                taken.append(message)
        self.forget(address, [message.id for message in taken])
        return Popped(messages=taken, sealed_next=sealed_next)

    def split(self, address: Address, lease: Lease) -> tuple[list[Message], list[Message]]:
        """Return what a claim takes, and what it moves to the dead-letter queue."""
        letter = lease.dead_letter
        threshold = letter.max_claims if letter and letter.address != address else None
        taken: list[Message] = []
        worn: list[Message] = []
        for message in self.free(address):
            if len(taken) < lease.limit:
                too_often = threshold is not None and message.claim_count >= threshold
                (worn if too_often else taken).append(message)
        return taken, worn

    def bury(self, source: Address, worn: Sequence[Message], new_ids: Sequence[str], lease: Lease) -> None:
        """Move messages to the end of the dead-letter queue."""
        letter = lease.dead_letter
        assert letter is not None
        self.forget(source, [message.id for message in worn])
        target = self.queues.setdefault(letter.address, Held())
        for message, id_ in zip(worn, new_ids, strict=True):
            moved = msgspec.structs.replace(message, id=id_, claim_count=0)
            if letter.ttl is not None:
                moved = msgspec.structs.replace(moved, created=self.now, expires=self.now + letter.ttl * 1000)
            self.append(target, moved, self.now)

    def lease(self, address: Address, claim_id: str, lease: Lease, ids: Collection[str]) -> None:
        """Let a claim on these messages begin, or begin anew."""
        until = self.now + lease.ttl * 1000
        claim = Claim(id=claim_id, ttl=lease.ttl, renewed=self.now, expires=until)
        self.claims.setdefault(address, {})[claim_id] = claim
        held = self.held(address)
        for place, message in enumerate(held.messages):
            if message.id in ids:
                expires = until + lease.grace * 1000 if message.expires < until else message.expires
                held.messages[place] = msgspec.structs.replace(message, claim_id=claim_id, expires=expires)

    def count(self, address: Address, ids: Collection[str]) -> None:
        """Note that these messages were handed out once more."""
        held = self.held(address)
        held.messages = [
            msgspec.structs.replace(message, claim_count=message.claim_count + 1)
            if message.id in ids
            else message
            for message in held.messages
        ]

    def read_claim(self, address: Address, claim_id: str) -> Claim:
        if claim_id not in self.leases(address):
            raise ClaimNotFound
        messages = [message for message in self.held(address).messages if message.claim_id == claim_id]
        return replace(self.leases(address)[claim_id], messages=messages)

    def renew(self, address: Address, claim_id: str, lease: Lease) -> None:
        messages = self.read_claim(address, claim_id).messages
        self.lease(address, claim_id, lease, [message.id for message in messages])

    def release(self, address: Address, claim_id: str) -> None:
        if self.leases(address).pop(claim_id, None):
            self.move_to(self.now)

    def purge(self, address: Address) -> None:
        self.held(address).messages.clear()
        self.leases(address).clear()

    def drop(self, address: Address) -> None:
        self.queues.pop(address, None)
        self.claims.pop(address, None)
