"""Streams: the messages of a queue on their way to the connections of this process that subscribed.

A process reads the log of a queue once, however many of its connections have
subscribed. Whoever comes back reads what it missed by itself, at its own speed, until it has
caught up with the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import structlog

from queues.bodies import parse as parse_body
from queues.errors import HermodError
from queues.filters import Filter, parse
from queues.models import Address, Subscription
from queues.service.pushes import Position, Pushed
from queues.service.waiting import Call, bell_of
from queues.tickets import notification
from transport.service import Service
from transport.websocket.frames import Payload, encoded

_SHORTEST_PAUSE = 0.1  # seconds between two tries to read a log
_LONGEST_PAUSE = 5.0
_MUCH = 1024 * 1024  # bytes that are passed on at once
_BREATH = 0.1  # seconds that clients have to read them, when there is more

T = TypeVar("T")

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Listener(Protocol):
    """A connection, as a stream sees it."""

    binary: bool  # what its frames are

    def push(self, payload: Payload) -> None:
        """Send a frame, when those before it are sent."""

    async def drained(self) -> None:
        """Wait until no frame waits to be sent."""

    def forget(self, subscription_id: str) -> None:
        """Pass no more messages of a subscription on."""

    def lost(self, subscription_id: str) -> None:
        """End, for one of its subscriptions did without its fault."""


@dataclass(eq=False)
class Member:
    """A subscription that a connection of this process has."""

    subscription: Subscription
    listener: Listener
    position: Position  # of the last notice that it was told of, or that was not for it

    def __post_init__(self) -> None:
        push, options = self.subscription.push, self.subscription.options
        self.base = push.after if push else 0
        self.numbered = push is not None and push.resumable
        self.filter: Filter | None = parse(options["filter"]) if options.get("filter") else None
        self.told = self.position.place  # place of the last notice that it was told of
        self.gone = False  # whether it is to be told nothing any more
        self.renew_at = 0.0  # monotonic seconds
        self.renewed()

    def renewed(self) -> None:
        """Note that the subscription's life has begun anew."""
        self.renew_at = time.monotonic() + self.subscription.ttl / 2

    def tell(self, pushed: Pushed, frames: Frames) -> None:
        """Pass a notice on, if it is new to this one and meant for it."""
        place = pushed.position.place
        if self.gone or place <= self.position.place:
            return
        if place > self.position.place + 1:  # what was between them is no longer kept
            self.told = place - 1
        self.position = pushed.position
        if self.filter is not None and not self.filter.matches(parse_body(pushed.notice.body)):
            return
        if not self.numbered:
            self.listener.push(frames.plain(binary=self.listener.binary))
            return
        self.listener.push(
            frames.with_members(
                binary=self.listener.binary,
                sequence=place - self.base,
                previous=self.told - self.base,
                subscription_id=self.subscription.id,
            )
        )
        self.told = place

    def skip(self, position: Position) -> None:
        """Go on behind what is no longer kept; what it is told next shows that something is missing."""
        self.position = position
        self.told = position.place

    def beat(self) -> None:
        """Tell how far it has come, and what it was told last, so that it knows whether it missed something.

        The two differ where a filter holds messages back.
        """
        text = _encode(
            {
                "Message_Type": "Heartbeat",
                "queue_name": self.subscription.address.queue,
                "subscription_id": self.subscription.id,
                "sequence": self.position.place - self.base,
                "previous": self.told - self.base,
            }
        )
        self.listener.push(encoded(text, binary=self.listener.binary))


class Frames:
    """The frames of one notice, written once for all who get the same."""

    def __init__(self, pushed: Pushed, queue: str) -> None:
        self._text = notification(pushed.notice, queue)
        self._plain: dict[bool, Payload] = {}

    def plain(self, *, binary: bool) -> Payload:
        """Return what the protocol tells everybody."""
        if binary not in self._plain:
            self._plain[binary] = encoded(self._text, binary=binary)
        return self._plain[binary]

    def with_members(self, *, binary: bool, sequence: int, previous: int, subscription_id: str) -> Payload:
        """Return that, with where it stands among the messages of a subscription."""
        more = b',"sequence":%d,"previous":%d,"subscription_id":"%s"}' % (
            sequence,
            previous,
            subscription_id.encode(),
        )
        return encoded(self._text[:-1] + more, binary=binary)


class Stream:
    """The log of a queue, read as long as somebody here has subscribed to it."""

    def __init__(self, service: Service, address: Address, call: Call) -> None:
        self._service = service
        self._call = call
        self.address = address
        self.members: dict[str, Member] = {}  # by id of the subscription; those who have caught up
        self._position = Position()
        self._coming = 0  # members that have not caught up yet
        self._busy = False  # whether something came since the subscriptions were looked at
        self._starting = asyncio.Lock()
        self._bell = asyncio.Event()
        self._end: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def join(self, member: Member) -> None:
        """Pass messages on to a member, beginning with what it missed."""
        self._coming += 1
        try:
            async with self._starting:
                if self._task is None:
                    self._position = await self._ask(partial(self._service.pushes.end, self.address))
                    self._task = asyncio.create_task(self._run())
            await self._catch_up(member)
        finally:
            self._coming -= 1
        self._admit(member)

    def _admit(self, member: Member) -> None:
        """Count somebody in; of two connections with one subscription the one stays that resumed it last."""
        id_ = member.subscription.id
        other = self.members.get(id_)
        if other is not None and other.subscription.renewed > member.subscription.renewed:
            member, other = other, member
        self.members[id_] = member
        if other is not None:
            other.listener.forget(id_)
        self._bell.set()

    async def _catch_up(self, member: Member) -> None:
        while member.position.place < self._position.place:
            page = await self._read(member.position)
            for pushed in page:
                member.tell(pushed, Frames(pushed, self.address.queue))
                await member.listener.drained()
            if not page:
                member.skip(self._position)

    @property
    def deserted(self) -> bool:
        """Whether nobody listens, nor is about to."""
        return not self.members and not self._coming

    def leave(self, member: Member) -> None:
        """Pass nothing more on to a member."""
        if self.members.get(member.subscription.id) is member:
            del self.members[member.subscription.id]

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._end is not None:
            self._end()

    async def look_after(self, *, lapsed: bool = False) -> None:
        """Renew subscriptions half of whose life is over, and let go of those that were removed elsewhere.

        Those that are gone were lost if this process did not count as alive for a while (`lapsed`).
        """
        now, kept = time.monotonic(), None
        members = list(self.members.values())  # whoever comes meanwhile may not be found
        if self._busy or lapsed:
            self._busy = False
            found = await self._call(partial(self._service.subscriptions.all, self.address))
            kept = {(each.id, each.push.connection) for each in found if each.push is not None}
        for member in members:
            id_, push = member.subscription.id, member.subscription.push
            assert push is not None  # noqa: S101 - or it would be no member
            gone = kept is not None and (id_, push.connection) not in kept
            if not gone and member.renew_at <= now:
                renew = partial(self._service.subscriptions.renew, self.address, id_, push.connection)
                gone = await self._call(renew) is None
                member.renewed()
            if gone and self.members.get(id_) is not member:
                continue
            if gone and lapsed:
                member.listener.lost(id_)
            elif gone:
                member.listener.forget(id_)

    async def _run(self) -> None:
        self._end = self._service.pushes.watch(self.address, bell_of(asyncio.get_running_loop(), self._bell))
        while True:
            await self._bell.wait()
            self._bell.clear()
            told = 0  # bytes
            while page := await self._read(self._position):
                for pushed in page:
                    if told > _MUCH:
                        await self._breathe()
                        told = 0
                    self._tell(pushed)
                    told += len(pushed.notice.body)

    async def _breathe(self) -> None:
        """Let those who read take what they were told before more comes, but wait for nobody who does not."""
        taking = {asyncio.create_task(member.listener.drained()) for member in self.members.values()}
        if taking:
            _, slow = await asyncio.wait(taking, timeout=_BREATH)
            for task in slow:
                task.cancel()

    async def _read(self, after: Position) -> Sequence[Pushed]:
        return await self._ask(partial(self._service.pushes.read, self.address, after))

    async def _ask(self, work: Callable[[], T]) -> T:
        """Ask the store, as often as it takes: nobody who has subscribed may be forgotten."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                return await self._call(work)
            except HermodError as error:
                _log.warning("cannot read what is pushed", queue=self.address.queue, reason=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _tell(self, pushed: Pushed) -> None:
        self._busy = True
        frames = Frames(pushed, self.address.queue)
        for member in list(self.members.values()):
            member.tell(pushed, frames)
        self._position = pushed.position
