"""What the tests hold in their hands: a clock, and a queue that is asked at the clock's time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from queues.models import (
    Address,
    Claim,
    Claimed,
    DeadLetter,
    Lease,
    Message,
    NewMessage,
    Once,
    Posted,
    Selection,
    Stats,
)
from queues.ports import MessageStore

START = 1_700_000_000_000  # ms; some point in time
HOME = Address(project="project", queue="queue")


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: int = START) -> None:
        self.now = now  # ms

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float = 0, *, ms: int = 0) -> None:
        self.now += round(seconds * 1000) + ms


@dataclass(frozen=True)
class Probe:
    """A queue of a store; durations are in seconds."""

    store: MessageStore
    clock: Clock
    address: Address = HOME

    def other(self, queue: str = "other", *, project: str | None = None) -> Probe:
        """Return another queue of the same store."""
        project = self.address.project if project is None else project
        return Probe(self.store, self.clock, Address(project=project, queue=queue))

    def post(self, *bodies: str, ttl: int = 3600, delay: int = 0, client_id: str = "") -> Sequence[str]:
        """Post one batch, a message for each body, and return the ids."""
        batch = [NewMessage(body=body.encode(), ttl=ttl, delay=delay, client_id=client_id) for body in bodies]
        return self.store.post(self.address, batch, now=self.clock.now, create=True).ids

    def fill(self, count: int, *, ttl: int = 3600, delay: int = 0, client_id: str = "") -> Sequence[str]:
        """Post one batch of so many messages, with the bodies 1, 2, 3..., and return the ids."""
        bodies = [str(number) for number in range(1, count + 1)]
        return self.post(*bodies, ttl=ttl, delay=delay, client_id=client_id)

    def post_once(self, *bodies: str, key: str = "key", fingerprint: str = "", window: int = 600) -> Posted:
        """Post with an idempotency key; the bodies are the fingerprint unless another is given."""
        once = Once(key=key, fingerprint=(fingerprint or ",".join(bodies)).encode(), window=window)
        batch = [NewMessage(body=body.encode(), ttl=60) for body in bodies]
        return self.store.post(self.address, batch, now=self.clock.now, once=once, create=True)

    def get(self, *ids: str) -> Sequence[Message]:
        return self.store.get(self.address, ids, now=self.clock.now)

    def only(self, message_id: str) -> Message:
        """Return a message that must exist."""
        (message,) = self.get(message_id)
        return message

    def page(
        self,
        marker: str | None = None,
        *,
        limit: int = 10,
        hide_client: str | None = None,
        include_claimed: bool = False,
        include_delayed: bool = False,
    ) -> Sequence[Message]:
        selection = Selection(
            marker=marker,
            limit=limit,
            hide_client=hide_client,
            include_claimed=include_claimed,
            include_delayed=include_delayed,
        )
        return self.store.list(self.address, selection, now=self.clock.now)

    def everything(self) -> Sequence[Message]:
        """Return all messages that exist."""
        return self.page(limit=1_000_000, include_claimed=True, include_delayed=True)

    def delete(self, message_id: str, claim_id: str | None = None) -> None:
        self.store.delete(self.address, message_id, now=self.clock.now, claim_id=claim_id)

    def delete_many(self, ids: Iterable[str], claim_ids: Collection[str] | None = None) -> None:
        self.store.delete_many(self.address, ids, now=self.clock.now, claim_ids=claim_ids)

    def pop(self, limit: int = 1) -> Sequence[Message]:
        return self.store.pop(self.address, limit, now=self.clock.now).messages

    def try_claim(
        self, limit: int = 10, *, ttl: int = 300, grace: int = 60, dead_letter: DeadLetter | None = None
    ) -> Claimed:
        lease = Lease(ttl=ttl, grace=grace, limit=limit, dead_letter=dead_letter)
        return self.store.claim(self.address, lease, now=self.clock.now)

    def claim(
        self, limit: int = 10, *, ttl: int = 300, grace: int = 60, dead_letter: DeadLetter | None = None
    ) -> Claim:
        """Claim messages, of which there must be some."""
        claim = self.try_claim(limit, ttl=ttl, grace=grace, dead_letter=dead_letter).claim
        assert claim is not None
        return claim

    def read_claim(self, claim_id: str) -> Claim:
        return self.store.read_claim(self.address, claim_id, now=self.clock.now)

    def renew(self, claim_id: str, *, ttl: int = 300, grace: int = 60) -> None:
        self.store.renew(self.address, claim_id, Lease(ttl=ttl, grace=grace), now=self.clock.now)

    def release(self, claim_id: str) -> None:
        self.store.release(self.address, claim_id, now=self.clock.now)

    def stats(self) -> Stats:
        return self.store.stats(self.address, now=self.clock.now)

    def counts(self) -> tuple[int, int, int]:
        """Return how many messages are free, claimed, and in all."""
        stats = self.stats()
        return stats.free, stats.claimed, stats.total

    def purge(self) -> None:
        self.store.purge(self.address, now=self.clock.now)

    def drop(self) -> None:
        self.store.drop(self.address)

    def expire(self, limit: int = 1_000_000) -> int:
        return self.store.expire(now=self.clock.now, limit=limit)


def ids(messages: Iterable[Message]) -> list[str]:
    return [message.id for message in messages]


def bodies(messages: Iterable[Message]) -> list[str]:
    return [message.body.decode() for message in messages]


def bring_nothing_new(queue: Probe) -> None:
    """Take from a queue, which holds some messages, look at it and empty it: nobody who watches it has to know."""
    claim = queue.claim(5)
    queue.renew(claim.id, ttl=600)
    queue.delete(claim.messages[0].id, claim.id)
    queue.delete_many([message.id for message in claim.messages], [claim.id])
    queue.release(claim.id)
    queue.pop(2)
    queue.try_claim(ttl=60)
    queue.try_claim()
    queue.clock.advance(60)
    queue.expire()
    queue.stats()
    queue.store.outlook(queue.address, now=queue.clock.now)
    queue.purge()
    queue.store.subscribe(queue.address, "stamp")
    queue.store.unsubscribe(queue.address, "stamp")
