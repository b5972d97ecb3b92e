"""The tokens that trust+ subscribers get: one for each trust, kept until it is about to expire."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from notifiers.outcome import Delivery, Undeliverable
from queues.service.trusts import TRUST_ID

_MARGIN = 60.0  # seconds before its end in which a token is no longer used
_REFUSED = 30.0  # seconds for which a trust that is gone is not asked about again
_PAUSE = 60.0  # seconds between two tokens that are replaced because the subscriber did not take them
_THREADS = 8  # that ask for tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token of whoever made a trust."""

    text: str = field(repr=False)
    expires: float  # Unix seconds


@dataclass(slots=True)
class _Known:
    """What is known of a trust."""

    token: str  # "" where there is none
    until: float  # Unix seconds; when it is to be asked for again
    refusal: str = ""  # why there is none
    replaced: float = -math.inf  # Unix seconds; when a token was last given up before its time


class TrustTokens:
    """Credentials (`notifiers.webhook.Credentials`) by trusts; for one event loop.

    `fetch` returns a new token of a trust, and may block; it raises Undeliverable where there
    will be none, TrustsUnavailable where there is none now.
    """

    def __init__(
        self,
        fetch: Callable[[str], Token],
        *,
        clock: Callable[[], float] = time.time,
        most: int = 10_000,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what gets tokens, a clock (Unix seconds), how many to remember, and what to do in the end."""
        self._fetch = fetch
        self._clock = clock
        self._most = most
        self._release = release
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by trust, the latest used last
        self._under_way: dict[str, asyncio.Task[str]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="keystone")

    async def token(self, delivery: Delivery) -> str:
        """Return the token for a delivery; raises Undeliverable, TrustsUnavailable."""
        trust_id = delivery.options.get(TRUST_ID)
        if not isinstance(trust_id, str):
            raise Undeliverable(
                "The subscription has no trust; changing it with a token of Keystone's gives it one."
            )
        known = self._known.get(trust_id)
        if known is None or known.until <= self._clock():
            return await self._ask(trust_id)
        self._known.move_to_end(trust_id)
        if known.refusal:
            raise Undeliverable(known.refusal)
        return known.token

    def refused(self, delivery: Delivery, token: str) -> None:
        """Get another token for the next delivery, but not all the time for who takes none."""
        known = self._known.get(delivery.options.get(TRUST_ID, ""))
        now = self._clock()
        if known is not None and known.token == token and now >= known.replaced + _PAUSE:
            known.until, known.replaced = now, now

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._release()

    async def _ask(self, trust_id: str) -> str:
        """Wait for a new token, together with all who want the same."""
        task = self._under_way.get(trust_id)
        if task is None:
            task = asyncio.create_task(self._renew(trust_id))
            self._under_way[trust_id] = task
            task.add_done_callback(lambda done: self._done(trust_id, done))
        return await asyncio.shield(task)  # one who gives up waiting leaves it to the others

    async def _renew(self, trust_id: str) -> str:
        try:
            token = await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, trust_id)
        except Undeliverable as error:
            self._keep(trust_id, _Known(token="", until=self._clock() + _REFUSED, refusal=str(error)))
            raise
        self._keep(trust_id, _Known(token=token.text, until=token.expires - _MARGIN))
        return token.text

    def _keep(self, trust_id: str, known: _Known) -> None:
        before = self._known.pop(trust_id, None)
        if before is not None:
            known.replaced = before.replaced
        self._known[trust_id] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _done(self, trust_id: str, task: asyncio.Task[str]) -> None:
        del self._under_way[trust_id]
        if not task.cancelled():
            task.exception()  # whoever waits has it; if nobody does any more, it is of no use
