"""The headers of queues in MongoDB; see the collection `queue` in `storage.mongodb`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from queues.identity import message_id, place_of
from queues.models import Address, Message
from queues.versions import sealed_of
from storage.mongodb_link import Document

NEVER: Final = 2**63 - 1

#: States of a queue: shut for a move, and moved away.
SHUT, AWAY = 1, 2


@dataclass(slots=True)
class QueueHeader:
    """A queue's header while a transaction works on it; see the collection `queue`."""

    address: Address
    gen: str
    pile: str
    last: int
    free: int
    claimed: int
    due: int
    only: str | None = None  # who posted everything that is there
    move: str | None = None  # id of the move that the queue is part of
    shut: int = 0  # SHUT while it is shut for that move, AWAY once it has moved away
    subscribed: str = ""  # the stamp of who noted last that posts need tickets; "" where they need none
    news: int = 0  # grows with each transaction that brings something new to those who watch the queue
    low: int = 0  # no message in front of this place is ready; see `storage.mongodb_ready`
    rev: int = 0  # grows with each transaction

    def expect(self, due: int) -> None:
        """Note that something falls due."""
        self.due = min(self.due, due)

    def tell(self) -> None:
        """Let those who watch the queue know that there is something new; see `storage.mongodb_listener`."""
        self.news += 1

    def back(self) -> None:
        """Note that messages are ready again at their places."""
        self.low = 0

    def places(self, ids: Iterable[str]) -> list[str]:
        """Return the keys of the messages that the ids name, those of other queues left out."""
        places = (place_of(id_, self.gen) for id_ in ids)
        return [message_key(self.pile, place) for place in places if place is not None]

    def message(self, found: Document) -> Message:
        """Build a message from its document. Raises StoreUnsupported if it is newer than this release."""
        return Message(
            sealed=sealed_of(found["se"]),  # first: nothing else of a newer one can be read
            id=message_id(found["seq"], self.gen),
            body=bytes(found["b"]),
            created=int(found["cr"]),  # from bson.Int64, which nothing but this driver knows
            expires=int(found["ex"]),
            client_id=found["cl"],
            claim_id=found.get("c"),
            claim_count=found["n"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a step most likely does to the header of its queue, so that reading the header can write it at once."""

    last: int = 0  # by how much these grow
    free: int = 0
    claimed: int = 0
    news: int = 0
    due: int = NEVER  # what falls due

    def __add__(self, other: Change) -> Change:
        """Return the change that both make."""
        return Change(
            last=self.last + other.last,
            free=self.free + other.free,
            claimed=self.claimed + other.claimed,
            news=self.news + other.news,
            due=min(self.due, other.due),
        )

    def update(self) -> Document:
        """Return how to write it."""
        grown = {"last": self.last, "free": self.free, "claimed": self.claimed, "news": self.news}
        update: Document = {"$inc": {"rev": 1, "kept": 1} | {name: by for name, by in grown.items() if by}}
        return update if self.due == NEVER else update | {"$min": {"due": self.due}}

    def written(self, queue: QueueHeader) -> Document:
        """Return what the changing part of a header is after that."""
        return changing(queue) | {
            "last": queue.last + self.last,
            "free": queue.free + self.free,
            "claimed": queue.claimed + self.claimed,
            "news": queue.news + self.news,
            "due": min(queue.due, self.due),
        }


NO_CHANGE: Final = Change()


def queue_key(address: Address) -> Document:
    """Return the key of a queue's header."""
    return {"p": address.project, "q": address.queue}


def changing(queue: QueueHeader) -> Document:
    """Return the part of a header's document that changes."""
    return {
        "pile": queue.pile,
        "last": queue.last,
        "free": queue.free,
        "claimed": queue.claimed,
        "due": queue.due,
        "only": queue.only,
        "move": queue.move,
        "shut": queue.shut,
        "sub": queue.subscribed,
        "news": queue.news,
        "low": queue.low,
        "kept": queue.rev,
    }


def is_kept(found: Document) -> bool:
    """Tell whether everybody who changed a queue minded `low`, which releases before 0.2 do not."""
    kept: bool = found.get("kept") == found["rev"]
    return kept


def header_of(address: Address, found: Document) -> QueueHeader:
    """Build a header from its document."""
    return QueueHeader(
        address=address,
        gen=found["gen"],
        pile=found["pile"],
        last=found["last"],
        free=found["free"],
        claimed=found["claimed"],
        due=found["due"],
        only=found.get("only"),
        move=found.get("move"),
        shut=found.get("shut", 0),
        subscribed=found.get("sub", ""),
        news=found.get("news", 0),
        low=found.get("low", 0) if is_kept(found) else 0,
        rev=found["rev"] + 1,
    )


def message_key(pile: str, place: int) -> str:
    """Return the key of the message at a place of a pile."""
    return f"{pile}{place:016x}"


def place_in(key: str) -> int:
    """Return the place that a message's key names."""
    return int(key[16:], 16)
