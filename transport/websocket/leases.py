"""Messages that are leased to a connection, as many as it has credit for, and given back when it closes."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Protocol

import msgspec
import structlog

from queues.errors import HermodError
from queues.models import Address
from queues.service.claims import SeenClaim
from queues.service.waiting import Call, Vigil, ringing
from transport.operations.claims import is_given
from transport.service import Service
from transport.websocket.frames import Payload, encoded
from transport.websocket.session import LeaseWish

_VIGIL = 60.0  # seconds after which somebody who waits begins to wait anew
_PAUSE = 1.0  # seconds before a store that failed is asked again

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Where frames go."""

    def push(self, payload: Payload) -> None:
        """Send a frame, when those before it are sent."""


class LeaseHolder:
    """One subscription in claim mode: takes the next message whenever there is credit for it."""

    def __init__(
        self,
        service: Service,
        wish: LeaseWish,
        sink: Sink,
        call: Call,
    ) -> None:
        self._service = service
        self._wish = wish
        self._sink = sink
        self._call = call
        self._address = Address(project=wish.caller.project, queue=wish.queue_name)
        self._held: dict[str, float] = {}  # when each lease ends (monotonic seconds), by claim
        self._credit = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def project(self) -> str:
        """Whose messages they are."""
        return self._address.project

    def settle(self, claim_id: str) -> None:
        """Have credit for one message more."""
        if self._held.pop(claim_id, None) is not None:
            self._credit.set()

    def renew(self, claim_id: str, seconds: int) -> None:
        """Note that a lease lasts longer."""
        if claim_id in self._held:
            self._held[claim_id] = time.monotonic() + seconds

    async def close(self) -> None:
        """Take no more, and give back what was not settled."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for claim_id in list(self._held):
            await self._give_back(claim_id)

    async def _run(self) -> None:
        while not self._service.waiting.closed:  # or else nobody waits any more
            await self._wait_for_credit()
            try:
                seen = await self._next()
            except HermodError as error:
                _log.warning("cannot lease messages", queue=self._address.queue, reason=str(error))
                await asyncio.sleep(_PAUSE)
                continue
            if seen is not None:
                self._held[seen.claim.id] = time.monotonic() + seen.claim.ttl
                self._sink.push(self._frame(seen))

    async def _wait_for_credit(self) -> None:
        """Wait until fewer messages are leased than may be; a lease that ended counts no more."""
        while True:
            now = time.monotonic()
            self._held = {claim: end for claim, end in self._held.items() if end > now}
            if len(self._held) < self._wish.mode.credit:
                return
            self._credit.clear()
            await ringing(self._credit, min(self._held.values()) - now)

    async def _next(self) -> SeenClaim | None:
        """Lease the next message, waiting for it for a while."""
        mode = self._wish.mode
        claim = partial(
            self._service.claims.create,
            self._address,
            limit=1,
            ttl=mode.claim_ttl,
            grace=mode.claim_grace,
        )
        room = self._service.waiting
        vigil: Vigil[SeenClaim | None] = Vigil(
            room, self._address, claim, is_given, None, seconds=_VIGIL, alone=False
        )
        return await vigil.sit(self._call, self._rescue)

    async def _rescue(self, seen: SeenClaim | None) -> None:
        """Give back what was leased just when nobody wanted it any more."""
        if seen is not None:
            await self._give_back(seen.claim.id)

    async def _give_back(self, claim_id: str) -> None:
        try:
            await self._call(partial(self._service.claims.release, self._address, claim_id))
        except HermodError as error:  # the lease ends by itself
            _log.warning("cannot give a message back", queue=self._address.queue, reason=str(error))

    def _frame(self, seen: SeenClaim) -> Payload:
        (message,) = seen.claim.messages
        text = _encode(
            {
                "Message_Type": "Claim",
                "queue_name": self._wish.queue_name,
                "subscription_id": self._wish.id,
                "claim_id": seen.claim.id,
                "claim_ttl": seen.claim.ttl,
                "message": {
                    "id": message.id,
                    "ttl": message.ttl,
                    "age": message.age(seen.now),
                    "claim_count": message.claim_count,
                    "body": msgspec.Raw(message.body),
                },
            }
        )
        return encoded(text, binary=self._wish.binary)
