"""Quotas: how much a project may have.

Queues are counted when one is declared. Messages and subscriptions are counted queue by queue,
which takes too long for a request, so a thread counts them now and then, as long as the project
adds any; in between this process adds what it lets pass. So a quota may be overshot by what other
processes let pass between two counts, and what was deleted makes room with the next count.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from queues.errors import HermodError, QuotaExceeded
from queues.models import Address, Record

_AGE = 5.0  # seconds after which a project is counted again
_SHARE = 20  # times as long as counting took, at least, until it is done again
_MOST = 10_000  # projects that are remembered


@dataclass(kw_only=True)
class Has:
    """What a project has, as far as it is known."""

    messages: int = 0
    subscriptions: int = 0


@dataclass(kw_only=True)
class _Account:
    has: Has
    added: Has  # of that, since the count that is under way began
    due: float = 0.0  # monotonic seconds; when it is to be counted again
    counting: bool = False


class Count(Protocol):
    """Counts what a project has."""

    def __call__(self, project: str, stop: Callable[[], bool], /) -> Has | None:
        """Return it; None if told to stop. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Census:
    """Counts queue by queue."""

    queues: Callable[[str, str], Sequence[Record]]  # the next ones of a project behind a name
    messages: Callable[[Address], int]  # of a queue
    subscriptions: Callable[[Address], int]  # likewise

    def __call__(self, project: str, stop: Callable[[], bool], /) -> Has | None:
        """Return what a project has; None if told to stop."""
        has, after = Has(), ""
        while page := self.queues(project, after):
            for record in page:
                if stop():
                    return None
                address = Address(project=project, queue=record.name)
                has.messages += self.messages(address)
                has.subscriptions += self.subscriptions(address)
            after = page[-1].name
        return has


class QuotaService:
    """Bounds what the projects have; a quota of 0 bounds nothing.

    `count` is called in a thread of its own, or however `run` calls it.
    """

    def __init__(
        self,
        count: Count,
        *,
        messages: int = 0,
        subscriptions: int = 0,
        timer: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._count = count
        self._most = Has(messages=messages, subscriptions=subscriptions)
        self._timer = timer
        self._run = run or self._in_a_thread
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def post(self, project: str, messages: int) -> None:
        """Count messages that are to be posted. Raises QuotaExceeded."""
        if self._most.messages:
            account = self._account(project)
            if account.has.messages + messages > self._most.messages:
                raise QuotaExceeded(f"The project may have {self._most.messages} messages.")
            with self._lock:
                account.has.messages += messages
                account.added.messages += messages

    def subscribe(self, project: str) -> None:
        """Count a subscription that is to be made. Raises QuotaExceeded."""
        if self._most.subscriptions:
            account = self._account(project)
            if account.has.subscriptions >= self._most.subscriptions:
                raise QuotaExceeded(f"The project may have {self._most.subscriptions} subscriptions.")
            with self._lock:
                account.has.subscriptions += 1
                account.added.subscriptions += 1

    def close(self) -> None:
        """Count no more."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _account(self, project: str) -> _Account:
        """Return what is known of a project, and have it counted if that is old."""
        with self._lock:
            account = self._accounts.pop(project, None) or _Account(has=Has(), added=Has())
            self._accounts[project] = account
            if len(self._accounts) > _MOST:
                self._accounts.popitem(last=False)
            if account.counting or self._closed or self._timer() < account.due:
                return account
            account.counting = True
            account.added = Has()
        self._run(lambda: self._recount(project, account))
        return account

    def _recount(self, project: str, account: _Account) -> None:
        begun = self._timer()
        try:
            found = self._count(project, lambda: self._closed)
        except HermodError:  # the store fails; what is known will do until it does not
            found = None
        took = self._timer() - begun
        with self._lock:
            if found is not None:
                has, added = account.has, account.added
                account.has = Has(
                    messages=_now(found.messages, has.messages, added.messages),
                    subscriptions=_now(found.subscriptions, has.subscriptions, added.subscriptions),
                )
            account.due = self._timer() + max(_AGE, _SHARE * took)
            account.counting = False

    def _in_a_thread(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(1, thread_name_prefix="quotas")
        with suppress(RuntimeError):  # it was closed just now
            self._threads.submit(work)


def _now(found: int, has: int, added: int) -> int:
    """Return what there is, when so much was found, and added meanwhile: that may have been found, too, or not."""
    return max(found, min(found + added, has))
