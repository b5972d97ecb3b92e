"""A live connection: reads requests one by one, and sends replies and what is pushed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

import falcon
import structlog
from falcon.asgi import WebSocket

from queues.errors import HermodError
from queues.models import Address, Subscription
from queues.service.claims import SeenClaim
from queues.service.pushes import Position
from queues.service.waiting import Vigil
from transport.auth import Identity
from transport.dispatch import Reply, attempt
from transport.service import Service
from transport.settings import WebsocketSettings
from transport.websocket.actions import Action
from transport.websocket.frames import Payload
from transport.websocket.leases import LeaseHolder
from transport.websocket.session import Handled, LeaseWish, Session, Waiting
from transport.websocket.streams import Member

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
SERVICE_RESTART = 1012
EXPIRED = 4003

_AHEAD = 16  # requests of a client that are read while it waits for messages
_GOODBYE = 2.0  # seconds that a client has to take what was sent before it is told to connect elsewhere
_MOST_BYTES = 16 * 1024 * 1024  # that may wait for a client to read them

T = TypeVar("T")

_log = structlog.stdlib.get_logger("hermod.websocket")


class Host(Protocol):
    """The process that a connection is served by, as the connection sees it."""

    id: str  # never used again
    base_url: str  # what the URIs of its connections begin with
    service: Service
    settings: WebsocketSettings
    actions: Mapping[str, Action]

    def call(self, work: Callable[[], T], /) -> asyncio.Future[T]:
        """Run something that waits for a store in a thread."""

    @property
    def crowded(self) -> bool:
        """Whether no more requests may stand in line for a thread."""

    def check_in(self) -> object:
        """See to it that the process counts as alive. Raises StoreError."""

    async def join(self, member: Member) -> None:
        """Pass the messages of a queue on to a subscription."""

    async def leave(self, member: Member) -> None:
        """Pass nothing more on to a subscription."""

    async def part(self, member: Member) -> None:
        """Be done with a subscription whose connection is closed."""


class Connection:
    """One client. Everything happens in the event loop, but what waits for a store."""

    def __init__(self, node: Host, socket: WebSocket) -> None:
        self.id = str(uuid.uuid4())
        self.node_id = node.id
        self.uri = f"{node.base_url}/{self.id}"
        self.binary = False  # the encoding of what is pushed
        self._node = node
        self._socket = socket
        self._session = Session(node.service, node.actions, self)
        self._ahead: deque[Payload] = deque()  # requests that came while it waited for messages
        self._outgoing: deque[Payload] = deque()
        self._bytes = 0  # in there
        self._empty = asyncio.Event()
        self._empty.set()
        self._sender: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._members: dict[str, Member] = {}  # by id of the subscription
        self._leases: dict[str, LeaseHolder] = {}  # likewise
        self._joining: dict[str, asyncio.Task[None]] = {}  # of those, until they have caught up
        self._tasks: set[asyncio.Task[None]] = set()
        self._handling = False  # whether a request is being handled
        self._retired = asyncio.Event()  # when no other will be
        self._expiry: asyncio.TimerHandle | None = None
        self._heard = time.monotonic()  # when the client sent something last

    async def run(self) -> None:
        """Serve until the connection is closed by either side."""
        _log.debug("connected", connection=self.id)
        try:
            while True:
                payload = await self._next()
                if self._retired.is_set():
                    break
                self._heard = time.monotonic()
                self._handling = True
                handled = await self._handle(payload)
                if isinstance(handled, Waiting):
                    handled = await self._wait(handled)
                if handled.first is not None:
                    handled.first()
                await self._answer(handled.reply)
                if handled.then is not None:
                    handled.then()
                self._handling = False
                if self._retired.is_set():
                    break
            await self._say_goodbye()
        except falcon.WebSocketDisconnected as end:
            _log.debug("disconnected", connection=self.id, code=end.code)

    async def _handle(self, payload: Payload) -> Handled | Waiting:
        """Handle a request in a thread, unless too many others wait for one."""
        if self._node.crowded:
            return self._session.refuse(payload)
        until = time.monotonic() + self._node.settings.patience
        return await self._node.call(partial(self._session.handle, payload, until))

    async def _next(self) -> Payload:
        """Return the next request; raises WebSocketDisconnected."""
        return self._ahead.popleft() if self._ahead else await self._read()

    async def _read(self) -> Payload:
        payload = await self._socket.receive_media()
        return payload if isinstance(payload, str | bytes) else b""  # as the handlers leave it

    async def _wait(self, waiting: Waiting) -> Handled:
        """Wait for messages, unless the client goes; raises WebSocketDisconnected."""
        sitting = asyncio.create_task(self._sit(waiting))
        leaving = asyncio.create_task(self._until_gone())
        try:
            await asyncio.wait((sitting, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sitting.cancel()  # if it is not done
            await asyncio.gather(sitting, leaving, return_exceptions=True)
        if sitting.cancelled():
            raise falcon.WebSocketDisconnected
        return sitting.result()

    async def _until_gone(self) -> None:
        """Wait until the client has gone; some requests that it sends meanwhile are kept."""
        with suppress(falcon.WebSocketDisconnected):
            while len(self._ahead) < _AHEAD:
                self._ahead.append(await self._read())
            await asyncio.Future()  # whether it goes behind so many, nobody can tell

    async def _sit(self, waiting: Waiting) -> Handled:
        vigil: Vigil[Any] = waiting.vigil
        rescue = partial(self._rescue, vigil.address)
        try:
            reply: Reply[Any] = Reply(value=await vigil.sit(self._node.call, rescue))
        except Exception as error:
            reply = attempt(waiting.operation, partial(_raise, error))
        try:
            return await self._node.call(lambda: waiting.finish(reply))
        except asyncio.CancelledError:
            await rescue(reply.value)
            raise

    async def _rescue(self, address: Address, found: object) -> None:
        """Give back what was claimed for a client that has gone."""
        if isinstance(found, SeenClaim):
            release = self._node.service.claims.release
            try:
                await self._node.call(partial(release, address, found.claim.id))
            except HermodError as error:  # the lease ends by itself
                _log.warning("cannot give a message back", queue=address.queue, reason=str(error))

    # --- sending

    def push(self, payload: Payload) -> None:
        """Send a frame, when those before it are sent; a client that does not read is disconnected."""
        if self._closing is not None:
            return
        if len(self._outgoing) >= self._node.settings.send_queue or self._bytes > _MOST_BYTES:
            self.close(POLICY_VIOLATION, "The client reads too slowly.")
            return
        self._outgoing.append(payload)
        self._bytes += len(payload)
        if self._sender is None:
            self._empty.clear()
            self._sender = asyncio.create_task(self._send_all())

    async def _answer(self, payload: Payload) -> None:
        """Send a reply; at once, if nothing waits to be sent before it."""
        if self._sender is not None or self._closing is not None:
            self.push(payload)
            return
        self._outgoing.append(payload)
        self._bytes += len(payload)
        self._empty.clear()
        self._sender = asyncio.current_task()
        await self._send_all()

    async def drained(self) -> None:
        """Wait until no frame waits to be sent."""
        await self._empty.wait()

    async def _send_all(self) -> None:
        try:
            while self._outgoing:
                payload = self._outgoing.popleft()
                if isinstance(payload, str):
                    await self._socket.send_text(payload)
                else:
                    await self._socket.send_data(payload)
                self._bytes -= len(payload)
        except (falcon.WebSocketDisconnected, falcon.OperationNotAllowed):
            self._outgoing.clear()
        finally:
            self._sender = None
            self._empty.set()

    async def retire(self) -> None:
        """Have the client connect elsewhere, when the request that is being handled is answered."""
        self._retired.set()
        if not self._handling:
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Close the connection; what is to be sent still is sent first, if the client reads it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.drained(), _GOODBYE)
        self.close(SERVICE_RESTART, "The service restarts; connect again.")

    def close(self, code: int, reason: str) -> None:
        """Close the connection; what is not sent yet is dropped."""
        if self._closing is None:
            self._outgoing.clear()
            self._closing = asyncio.create_task(self._close(code, reason))

    async def closed(self) -> None:
        """Wait until the client has heard of it, or is not waited for any more, if this side closes the connection."""
        if self._closing is not None:
            await asyncio.wait((self._closing,))

    async def _close(self, code: int, reason: str) -> None:
        _log.debug("closing", connection=self.id, code=code, reason=reason)
        try:
            await self._socket.close(code, reason)
        except falcon.OperationNotAllowed:
            return

    # --- what requests change; see session.Link

    @property
    def room(self) -> int:
        """How many subscriptions it may have still."""
        return self._node.settings.subscriptions - len(self._members) - len(self._leases)

    def check_in(self) -> None:
        """See to it that the process counts as alive; in whatever thread."""
        self._node.check_in()

    def follow(self, subscription: Subscription, after: Position, *, binary: bool) -> None:
        """Begin to pass messages on."""
        self.binary = binary
        self.forget(subscription.id)  # if it is one that this connection has, and wants to begin anew
        member = Member(subscription, self, after)
        self._members[subscription.id] = member
        self._joining[subscription.id] = self._spawn(self._node.join(member))

    def lease(self, wish: LeaseWish) -> None:
        """Begin to lease messages."""
        self._leases[wish.id] = LeaseHolder(self._node.service, wish, self, self._node.call)

    def forget(self, subscription_id: str) -> None:
        """Pass no more messages on."""
        member = self._members.pop(subscription_id, None)
        if member is not None:
            member.gone = True
            self._joining.pop(subscription_id).cancel()
            self._spawn(self._node.leave(member))
        holder = self._leases.pop(subscription_id, None)
        if holder is not None:
            self._spawn(holder.close())

    def settled(self, claim_id: str) -> None:
        """Note that a leased message is done with, or was given back."""
        for holder in self._leases.values():
            holder.settle(claim_id)

    def renewed(self, claim_id: str, seconds: int) -> None:
        """Note that a leased message stays so for longer."""
        for holder in self._leases.values():
            holder.renew(claim_id, seconds)

    def leases(self, subscription_id: str) -> bool:
        """Whether messages are leased to a subscription of this connection."""
        return subscription_id in self._leases

    def authenticated(self, identity: Identity) -> None:
        """Note who speaks, and close the connection when that is over; another project is told nothing any more."""
        for member in list(self._members.values()):
            subscription = member.subscription
            if identity.project not in (None, subscription.address.project):
                self.forget(subscription.id)
                self._spawn(self._node.part(member))
        for id_, holder in list(self._leases.items()):
            if identity.project not in (None, holder.project):
                self.forget(id_)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if identity.expires is not None:
            left = (identity.expires - self._node.service.clock()) / 1000
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, left), self.expire)

    def expire(self) -> None:
        """Close the connection, for nobody knows any more who speaks."""
        self.close(EXPIRED, "Authentication expired.")

    def lost(self, subscription_id: str) -> None:
        """End, for one of its subscriptions did without its fault."""
        if subscription_id in self._members:
            self.close(SERVICE_RESTART, "A subscription was lost; connect again.")

    # --- what the node asks for now and then

    def beat(self) -> None:
        """Send the heartbeats of its subscriptions."""
        for member in self._members.values():
            if member.numbered:
                member.beat()

    async def look_after(self) -> None:
        """Close a connection that is of no use any more, or whose token is not valid any more."""
        idle = time.monotonic() - self._heard
        if idle > self._node.settings.idle_timeout and not self._members and not self._leases:
            self.close(GOING_AWAY, "Nothing was heard for too long.")
        elif not await self._node.call(self._session.still_valid):
            self.expire()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def clean_up(self) -> None:
        """Give back what is leased, and remove the subscriptions that end with the connection."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._outgoing.clear()
        self._empty.set()
        members, holders = list(self._members.values()), list(self._leases.values())
        for joining in self._joining.values():
            joining.cancel()
        self._joining.clear()
        self._members.clear()
        self._leases.clear()
        await asyncio.gather(
            *(holder.close() for holder in holders),
            *(self._node.part(member) for member in members),
            *self._tasks,
            return_exceptions=True,
        )


def _raise(error: Exception) -> NoReturn:
    raise error
