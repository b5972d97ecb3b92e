"""What the core needs of storage, and nothing else.

Two contracts: `MessageStore` holds messages and claims (the data plane, one
per pool), `RecordStore` holds what describes them (the control plane). A driver
implements both, and `QueueTransfers`, by which a queue moves from one store to
another. `Stores` opens drivers by URI; which queue lives where is the business of
`queues.service.catalogue`.

Rules for every implementation:

- A method is one atomic step: all of it is visible, or none. When it returns,
  its effect survives a crash as far as the driver's durability goes (P1).
- `now` (ms) comes from the same store's `clock`. A message is gone, a claim
  over and a delay passed at exactly that instant (`due <= now`), whether or not
  anything has been reclaimed since.
- A queue that does not exist is an empty one, unless a method says otherwise.
- An id that is malformed, foreign or stale is an id that does not exist.
- A driver raises `StoreUnavailable` in bounded time when its engine does not
  answer, and no error of its vendor.
- Every method of a `MessageStore` but `drop` and `watch` raises `QueueMoved` for a queue that is
  shut (see `QueueTransfers`), and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from queues.models import (
    Address,
    Cargo,
    Claim,
    Claimed,
    Durability,
    JsonObject,
    Lease,
    Message,
    NewMessage,
    Once,
    Outline,
    Outlook,
    Popped,
    Posted,
    Record,
    Selection,
    Stats,
)


class MessageStore(Protocol):
    """Messages and claims of the queues of one pool."""

    def clock(self) -> int:
        """Return the store's own time in ms since the epoch."""

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
        """Append messages in order, all or none, and return their ids.

        In the same step the tickets, by which subscribers will be told, go to the queue's
        outbox, unless the post repeats an earlier one. A queue that is made here has
        subscribers if there are tickets. None tells nobody, whether there are subscribers or not.

        Raises QueueNotFound if the store does not know the queue yet and
        `create` is false; KeyReused if `once` was used for other content;
        FanOutChanged if there are tickets and no subscribers, or the other way round.
        """

    def subscribe(self, address: Address, stamp: str) -> None:
        """Note that the queue, which is made if need be, has subscribers, and who noted it last."""

    def unsubscribe(self, address: Address, stamp: str) -> None:
        """Note that the queue has no subscribers, unless somebody else has noted since that it has."""

    def outboxes(self) -> Sequence[Address]:
        """Return where tickets wait: they are queues, of no project."""

    def get(self, address: Address, ids: Iterable[str], *, now: int) -> Sequence[Message]:
        """Return those of the messages that exist, in queue order."""

    def list(self, address: Address, selection: Selection, *, now: int) -> Sequence[Message]:
        """Return up to `limit` matching messages behind the marker, in queue order."""

    def delete(self, address: Address, message_id: str, *, now: int, claim_id: str | None = None) -> None:
        """Delete one message, if it exists.

        Raises MessageClaimed if a live claim other than `claim_id` holds it and
        `claim_id` is absent or a live claim; ClaimNotHeld if `claim_id` is given
        and no live claim, or the message is not claimed.
        """

    def delete_many(
        self,
        address: Address,
        ids: Iterable[str],
        *,
        now: int,
        claim_ids: Collection[str] | None = None,
    ) -> None:
        """Delete the messages that exist; claims matter only if `claim_ids` is given.

        Raises MessageClaimed, and deletes nothing, if a message is held by a
        live claim that is not in `claim_ids`.
        """

    def pop(self, address: Address, limit: int, *, now: int) -> Popped:
        """Remove and return the first `limit` messages that could be claimed.

        It ends in front of an encrypted one, which whoever cannot decrypt it would lose.
        """

    def claim(self, address: Address, lease: Lease, *, now: int) -> Claimed:
        """Lease the first messages that are free, and count the hand-out of each.

        A message that would expire before the claim lives until the claim's
        expiry plus grace. Messages handed out `lease.dead_letter.max_claims` times
        are moved to the end of the dead-letter queue instead, unclaimed and with a
        count of zero.
        """

    def read_claim(self, address: Address, claim_id: str, *, now: int) -> Claim:
        """Return a live claim with what is left of its messages.

        Raises ClaimNotFound.
        """

    def renew(self, address: Address, claim_id: str, lease: Lease, *, now: int) -> None:
        """Let a live claim begin anew, with new ttl and grace.

        Raises ClaimNotFound.
        """

    def release(self, address: Address, claim_id: str, *, now: int) -> None:
        """End a claim, if it lives; its messages return to their places."""

    def watch(self, address: Address, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever there may be something new in the queue; return what ends that.

        New is what is posted (with a delay, too), moved there or released, a lease that has become shorter, and
        a queue that is shut. What time alone brings is not told: see `outlook`.

        `wake` is called once as soon as the watch is in force, and after whatever may have been missed, such as a
        connection that broke. It must return at once, comes from any thread, and may come for
        nothing, but not because of other queues. Neither call waits for the store, and while
        nothing happens a watch costs the store nothing. A queue that is shut can be watched.
        """

    def outlook(self, address: Address, *, now: int) -> Outlook:
        """Return what is to come in a queue."""

    def stats(self, address: Address, *, now: int) -> Stats:
        """Count the messages of a queue."""

    def purge(self, address: Address, *, now: int) -> None:
        """Remove all messages and claims; markers and idempotency keys stay valid."""

    def drop(self, address: Address) -> None:
        """Remove all that the store knows of the queue, its ids included."""

    def expire(self, *, now: int, limit: int) -> int:
        """Reclaim what expiry, purge and drop left behind: at most about `limit` rows.

        Returns how many; fewer than `limit` when nothing is left to do. No other
        method depends on this having run.
        """

    def totals(self, *, now: int) -> Stats:
        """Count the messages of all queues, without landmarks."""

    def joins(self, one: Address, other: Address) -> bool:
        """Tell whether one step can change both queues, so that dead letters may go from one to the other."""

    def durability(self) -> Durability:
        """Ask the engine what would survive a crash; StoreUnavailable if it does not answer."""


class QueueTransfers(Protocol):
    """Queues on their way from one store to another, while posts and claims go on.

    A move has an id. It is announced at the target by `depart`. At the source: `depart`, `export` until it has caught up, `shut`,
    `export` until it has caught up with the rest, and `retire` once the queue is known
    to live elsewhere. At the target: `admit`, `load` of each cargo, `arrive`, and
    `reopen` once the queue is known to live there. Shut is a state of the queue in one
    store, for one move, and whoever meets it looks up where the queue lives. Every
    method may be repeated.

    All instants are by the clock of the store that is asked.
    """

    def depart(self, address: Address, move: str) -> str:
        """Note from now on what changes in a queue, which is made if need be; return its generation.

        A move that began earlier is over. Raises QueueMoved if the queue is shut.
        """

    def export(self, address: Address, move: str, *, cursor: str, limit: int) -> Cargo:
        """Return what the queue holds, about `limit` things of it, then what has changed since.

        A cursor of "" begins. Raises MoveInterrupted if this move is over.
        """

    def shut(self, address: Address, move: str) -> Outline:
        """Let nobody at the queue any more. Raises MoveInterrupted if this move is over."""

    def retire(self, address: Address, move: str, *, now: int) -> None:
        """Drop what the queue holds, if this move shut it; it stays shut for an hour, then it is forgotten."""

    def admit(self, address: Address, move: str, generation: str, *, announced: bool = False) -> None:
        """Make an empty queue that is shut, in place of whatever stands there.

        With `announced` only if this move departed there before, too, and nobody else has been there
        since: so nothing is overwritten that came later. Raises MoveInterrupted.
        """

    def load(self, address: Address, move: str, cargo: Cargo) -> None:
        """Take over what a cargo says. Raises MoveInterrupted unless this move admitted the queue."""

    def arrive(self, address: Address, move: str, outline: Outline) -> None:
        """Take over the outline. Raises MoveInterrupted unless this move admitted the queue."""

    def reopen(self, address: Address, move: str) -> None:
        """Let everybody at the queue again, and let the move be over; a queue that was retired is forgotten."""

    def discard(self, address: Address, move: str) -> None:
        """Drop the queue if this move shut it."""


class RecordStore(Protocol):
    """Named records, grouped by kind and scope, each with a revision."""

    def insert(self, record: Record) -> bool:
        """Store a record at its own revision; false, and nothing done, if the name is taken."""

    def fetch(self, kind: str, scope: str, name: str) -> Record | None:
        """Return a record, or None."""

    def replace(self, record: Record) -> bool:
        """Store new data at the next revision; false if `record.revision` is not the stored one."""

    def remove(self, kind: str, scope: str, name: str, *, revision: int | None = None) -> bool:
        """Remove a record; false if there was none, or not at that revision."""

    def scan(self, kind: str, scope: str, *, after: str = "", limit: int) -> Sequence[Record]:
        """Return up to `limit` records whose names sort behind `after`, by name in byte order."""

    def count(self, kind: str, scope: str) -> int:
        """Count the records of one kind and scope."""


class Driver(Protocol):
    """One opened store: every contract over one engine."""

    @property
    def capabilities(self) -> Sequence[str]:
        """What the store can do, in the words of the protocol's flavors."""

    @property
    def messages(self) -> MessageStore:
        """The data plane."""

    @property
    def transfers(self) -> QueueTransfers:
        """The way in and out for whole queues."""

    @property
    def records(self) -> RecordStore:
        """The control plane."""

    def close(self) -> None:
        """Let go of connections and files."""


class Trusts(Protocol):
    """Lets the service act for its callers later on, towards subscribers that want to see a token."""

    def create(self, token: str, *, expires: int) -> str:
        """Have whoever a token belongs to trust the service until then (ms); return the trust's id.

        Raises TokenRefused, TrustRefused, TrustsUnavailable.
        """

    def remove(self, trust_id: str) -> None:
        """End a trust soon, if that can be done; it ends by itself in any case. Waits for nothing, raises nothing."""

    def close(self) -> None:
        """End what is to be ended, for as long as that takes no time, and let go of connections."""


class Stores(Protocol):
    """Opens stores by URI, and keeps them open."""

    def open(self, uri: str, options: JsonObject) -> Driver:
        """Return the store that a URI names.

        Raises StoreUnsupported for a URI that is wrong, StoreUnavailable.
        """

    def retain(self, uris: Collection[str]) -> None:
        """Close, after a while, the stores that are open and not among these."""
