"""The worker: takes tickets and pending deliveries, tells subscribers, keeps what has to be tried again.

A batch is settled when each of its deliveries got through, was given up, or is kept.
A subscriber that takes its time holds nothing up: after a moment, what is under way
is kept too, to be due when the attempt must have ended, and the copy is dropped when
it has. So a crash at any instant repeats deliveries and loses none.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random, SystemRandom
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from notifiers.breaker import Breaker, BreakerSettings, endpoint_of
from notifiers.outcome import Delivery, Kind, Notifier, Outcome
from queues.errors import HermodError, StoreError
from queues.filters import Filter
from queues.filters import parse as parse_filter
from queues.models import (
    Address,
    Attempt,
    DeliveryCounts,
    Json,
    JsonObject,
    PendingDelivery,
    Subscription,
    Ticket,
)
from queues.retries import jitter, policy_for
from queues.service.deliveries import Batch, Box, DeliveryService
from queues.service.pushes import PushService
from queues.service.subscriptions import Audience, SubscriptionService
from queues.service.waiting import Line, bell_of
from queues.tickets import notification

T = TypeVar("T")

_log = structlog.get_logger()

_FLUSH = 1.0  # seconds between two notes of what became of deliveries
_FIRST = 10  # tickets leased at once, before it is known how many subscribers they have
_PART = 500  # deliveries of a batch that are concluded together
_PARTS = 32  # of them under way at once
_BLOCKED = 1  # seconds after which what could not begin is looked at again
_HISTORY = 20  # attempts of a subscription that are noted at once at most
_MARGIN = 5.0  # seconds that an attempt may take beyond its timeouts
_RESTING = "The endpoint failed too often of late; it is left alone for a while."
_BROKEN = "The attempt failed within the service."
_END = 15.0  # seconds that deliveries have to end when the worker is told to stop


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """How much a worker does at once."""

    in_flight: int = 1000  # deliveries under way, in this process
    per_subscriber: int = 32  # of them to one subscriber that is quick
    batch: int = 50  # tickets or deliveries leased at once at most
    backlog: int = 500  # deliveries that were taken and not begun, when no more is taken
    longest_pause: float = 30.0  # seconds between two looks at a store that fails, or has nothing
    patience: float = 1.0  # seconds that a batch waits for its deliveries
    timeout: float = 20.0  # seconds that an attempt takes at most
    require_confirmation: bool = False  # whether subscribers that have not confirmed are told nothing


@dataclass(slots=True)
class _Job:
    """One delivery in a batch."""

    pending: PendingDelivery
    subscription: Subscription
    policy: JsonObject | None  # the queue's retry policy
    started: bool = False  # whether the attempt is under way
    resting: float = 0.0  # seconds for which the endpoint is left alone, so that no attempt was made


@dataclass(slots=True)
class _News:
    """What became of a subscription's deliveries since it was noted last."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0
    filtered: int = 0
    last_error: str | None = None
    attempts: list[Attempt] = field(default_factory=list)

    def add_older(self, older: _News) -> None:
        """Add what came before."""
        self.delivered += older.delivered
        self.failed += older.failed
        self.dead += older.dead
        self.filtered += older.filtered
        self.last_error = self.last_error or older.last_error
        self.attempts = [*older.attempts, *self.attempts][-_HISTORY:]

    def counts(self) -> DeliveryCounts:
        return DeliveryCounts(
            delivered=self.delivered,
            failed=self.failed,
            dead=self.dead,
            filtered=self.filtered,
            last_error=self.last_error,
            attempts=self.attempts[::-1][:_HISTORY],
        )


class _Gate:
    """Bounds the attempts at one subscriber: a few at first, more as they get through, one while it is slow."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._window = min(4, most)
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for room."""
        if self._active < self._window and not self._waiting:
            self._active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(quick=True)
            raise

    def leave(self, *, quick: bool) -> None:
        """Make room."""
        self._active -= 1
        self._window = min(self._most, self._window + 1) if quick else 1
        while self._waiting and self._active < self._window:
            turn = self._waiting.popleft()
            if not turn.done():
                self._active += 1
                turn.set_result(None)

    def slow(self) -> None:
        """Note that an attempt takes its time."""
        self._window = 1


class Worker:
    """Delivers until it is told to stop. Any number of them may work on the same stores."""

    def __init__(
        self,
        deliveries: DeliveryService,
        subscriptions: SubscriptionService,
        pushes: PushService,
        notifier: Notifier,
        settings: WorkerSettings,
        *,
        random: Random | None = None,
    ) -> None:
        self._deliveries = deliveries
        self._subscriptions = subscriptions
        self._pushes = pushes
        self._notifier = notifier
        self._settings = settings
        self._random = random or SystemRandom()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="store")
        self._in_flight = asyncio.Semaphore(settings.in_flight)
        self._open = 0  # deliveries that were taken, and neither concluded nor left to a copy
        self._parts = asyncio.Semaphore(_PARTS)
        self._room = asyncio.Event()  # set while there are not too many of them
        self._room.set()
        self._gates: WeakValueDictionary[str, _Gate] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bells: set[asyncio.Event] = set()  # rung where there may be something to do
        self._news: dict[tuple[Address, str], _News] = {}
        self._filters: dict[bytes, Filter] = {}
        self._breaker = Breaker(BreakerSettings(), time.monotonic)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, and end what is under way."""
        pumps: dict[Box, asyncio.Task[None]] = {}
        flusher = asyncio.create_task(self._flush_often(stop))
        while not stop.is_set():
            for box in await self._boxes():
                if box not in pumps or pumps[box].done():
                    pumps[box] = asyncio.create_task(self._pump(box, stop))
            await _pause(stop, _FLUSH)
        for bell in self._bells:
            bell.set()
        await asyncio.gather(*pumps.values(), flusher)
        end = time.monotonic() + _END
        while (
            self._tasks and (left := end - time.monotonic()) > 0
        ):  # one may leave its slow attempts to others
            await asyncio.wait(self._tasks, timeout=left)
        late = list(self._tasks)
        for task in late:  # what they deliver is kept in the store
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self._flush()
        await self._notifier.close()
        self._threads.shutdown()

    async def _boxes(self) -> Sequence[Box]:
        try:
            return await self._call(self._deliveries.boxes)
        except StoreError as error:
            _log.warning("cannot find the pools", reason=str(error))
            return []

    async def _pump(self, box: Box, stop: asyncio.Event) -> None:
        """Take what is in a box, batch by batch, and wait for more when it is empty."""
        bell, line = asyncio.Event(), Line()
        line.members.append(bell_of(asyncio.get_running_loop(), bell))
        self._bells.add(bell)
        pause, limit = 0.0, _FIRST
        try:
            while not stop.is_set():
                await self._room.wait()
                bell.clear()
                try:
                    batch = await self._call(partial(self._deliveries.take, box, limit))
                    if batch is None:
                        due = await self._call(partial(self._deliveries.follow, box, line))
                    pause = 0.0
                except HermodError as error:
                    _log.warning("cannot take deliveries", pool=box.pool, reason=str(error))
                    pause = min(2 * pause + 0.1, self._settings.longest_pause)
                    await _pause(stop, pause)
                    continue
                if batch is None:
                    await _pause(bell, min(due, self._settings.longest_pause))
                else:
                    limit = await self._begin(batch) or limit
        finally:
            self._bells.discard(bell)
            line.close()

    async def _begin(self, batch: Batch) -> int | None:
        """Begin to deliver a batch; return how many there should be in the next one, if that is known."""
        jobs = await self._jobs_of(batch)
        if jobs is None:
            return None
        taken = max(1, len(batch.tickets) + len(batch.pending))
        self._count(len(jobs))
        self._spawn(self._work(batch, jobs))
        return max(1, min(self._settings.batch, self._settings.backlog * taken // (2 * len(jobs) or 1)))

    async def _jobs_of(self, batch: Batch) -> list[_Job] | None:
        """Return the deliveries of a batch; None where they cannot be had now: the lease ends, and somebody tries again."""
        try:
            return await self._jobs(batch)
        except HermodError as error:
            _log.warning("cannot find subscribers", pool=batch.pool, reason=str(error))
            return None

    def _count(self, change: int) -> None:
        self._open += change
        if self._open < self._settings.backlog:
            self._room.set()
        else:
            self._room.clear()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, batch: Batch, jobs: Sequence[_Job]) -> None:
        try:
            await self._deliver(batch, jobs)
        except HermodError as error:  # the lease ends, and somebody does it again
            _log.warning("cannot settle deliveries", pool=batch.pool, reason=str(error))
        except Exception:
            _log.exception("a batch of deliveries failed", pool=batch.pool)

    async def _deliver(self, batch: Batch, jobs: Sequence[_Job]) -> None:
        """Make the deliveries of a batch, and settle it."""
        begun = time.monotonic()
        parts = [jobs[first : first + _PART] for first in range(0, len(jobs), _PART)]
        await asyncio.gather(*(self._deliver_in_turn(batch.pool, part, begun) for part in parts))
        everything = [ticket.id for ticket in batch.tickets] + [each.id for each in batch.pending]
        await self._call(partial(self._deliveries.settle, batch, everything))

    async def _deliver_in_turn(self, pool: str, jobs: Sequence[_Job], begun: float) -> None:
        """Make some deliveries of a batch when there is room for them, and before its lease can end."""
        try:
            async with self._parts:
                if time.monotonic() - begun < self._deliveries.lease / 3:
                    await self._deliver_part(pool, jobs)
                else:
                    await self._keep(pool, [(job.pending, 0) for job in jobs])
        finally:
            self._count(-len(jobs))

    async def _deliver_part(self, pool: str, jobs: Sequence[_Job]) -> None:
        attempts = {asyncio.create_task(self._attempt(job)): job for job in jobs}
        done, waiting = await asyncio.wait(attempts, timeout=self._settings.patience)
        kept: list[tuple[PendingDelivery, int]] = []
        for task in done:
            kept += await self._conclude(attempts[task], task.result())
        slow = [task for task in waiting if attempts[task].started]
        for task in waiting.difference(slow):
            task.cancel()
            kept.append((attempts[task].pending, _BLOCKED))
        hold = round(self._settings.timeout + _MARGIN)
        ids = await self._keep(pool, [*((attempts[task].pending, hold) for task in slow), *kept])
        for task, id_ in zip(slow, ids, strict=False):
            self._gate(attempts[task]).slow()
            self._spawn(self._finish(pool, task, attempts[task], id_))

    async def _keep(self, pool: str, kept: Sequence[tuple[PendingDelivery, int]]) -> Sequence[str]:
        return await self._call(partial(self._deliveries.keep, pool, kept)) if kept else []

    async def _finish(self, pool: str, task: asyncio.Task[Outcome], job: _Job, copy: str) -> None:
        """Wait for a slow attempt, and drop the copy that stands for it."""
        try:
            await self._keep(pool, await self._conclude(job, await task))
            await self._call(lambda: self._deliveries.forget(pool, [copy]))
        except HermodError as error:  # the copy falls due, and it is done again
            _log.warning("cannot settle a delivery", pool=pool, reason=str(error))

    async def _jobs(self, batch: Batch) -> list[_Job]:
        """Return the deliveries that a batch comes down to."""
        addresses = {ticket.address for ticket in batch.tickets} | {each.address for each in batch.pending}
        audiences: dict[Address, Audience] = {}
        for address in addresses:
            audiences[address] = await self._call(partial(self._subscriptions.audience, address))
        jobs: list[_Job] = []
        for ticket in batch.tickets:
            audience = audiences[ticket.address]
            if any(subscription.push is not None for subscription in audience.by_id.values()):
                # In the order of the tickets, and before anything else: those who are connected wait.
                await self._call(partial(self._pushes.append, ticket))
            jobs += self._expand(ticket, audience)
        for pending in batch.pending:
            audience = audiences[pending.address]
            found = audience.by_id.get(pending.subscription_id)
            if found is not None and (pending.payload is not None or self._wants(found)):
                jobs.append(_Job(pending, found, audience.retry_policy))
        return jobs

    def _wants(self, subscription: Subscription) -> bool:
        """Whether a subscriber is told of messages now, and not through its connection."""
        unasked = self._settings.require_confirmation and not subscription.confirmed
        return subscription.push is None and subscription.disabled is None and not unasked

    def _expand(self, ticket: Ticket, audience: Audience) -> Iterator[_Job]:
        parsed: dict[str, Json] = {}
        for subscription in audience.by_id.values():
            if not self._wants(subscription):
                continue
            wanted = self._filter(subscription)
            for notice in ticket.notices:
                if wanted is not None:
                    if notice.id not in parsed:
                        parsed[notice.id] = _parse(notice.body)
                    if not wanted.matches(parsed[notice.id]):
                        self._newest(subscription).filtered += 1
                        continue
                pending = PendingDelivery(
                    notice=notice,
                    address=ticket.address,
                    subscription_id=subscription.id,
                    attempt=1,
                    posted=ticket.posted,
                    sealed=ticket.sealed,
                )
                yield _Job(pending, subscription, audience.retry_policy)

    def _filter(self, subscription: Subscription) -> Filter | None:
        document = subscription.options.get("filter")
        if not document:
            return None
        key = msgspec.json.encode(document)
        if key not in self._filters:
            if len(self._filters) > 10_000:
                self._filters.clear()
            self._filters[key] = parse_filter(document)
        return self._filters[key]

    async def _attempt(self, job: _Job) -> Outcome:
        """Make one attempt, when there is room for it."""
        gate = self._gate(job)
        await gate.enter()
        outcome: Outcome | None = None
        try:
            async with self._in_flight:
                job.started = True
                outcome = await self._guarded(job)
        except Exception:  # a mistake of ours, which must not cost others their messages
            _log.exception("an attempt broke down", subscription=job.subscription.id)
            outcome = Outcome(kind=Kind.RETRY, detail=_BROKEN)
        finally:
            gate.leave(quick=outcome is not None and outcome.kind is not Kind.RETRY)
        return outcome

    def _gate(self, job: _Job) -> _Gate:
        """Return the gate of a subscription; it lasts as long as somebody holds it."""
        gate = self._gates.get(job.subscription.id)
        if gate is None:
            gate = self._gates[job.subscription.id] = _Gate(self._settings.per_subscriber)
        return gate

    async def _guarded(self, job: _Job) -> Outcome:
        """Make an attempt, unless the endpoint has failed so often that it is left alone for a while."""
        endpoint = endpoint_of(job.subscription.subscriber)
        if endpoint is None:
            return await self._notifier.deliver(_delivery(job))
        wait = self._breaker.admit(endpoint)
        if wait > 0:
            job.resting = wait
            return Outcome(kind=Kind.RETRY, detail=_RESTING)
        outcome: Outcome | None = None
        try:
            outcome = await self._notifier.deliver(_delivery(job))
        finally:
            self._breaker.report(endpoint, outcome)
        return outcome

    async def _conclude(self, job: _Job, outcome: Outcome) -> list[tuple[PendingDelivery, int]]:
        """Note how an attempt ended; return what has to be kept of it, with the seconds until it is due."""
        pending, subscription = job.pending, job.subscription
        news = self._newest(subscription)
        if job.resting and (again := self._next(job, outcome)) is not None:
            return [again]
        attempt = Attempt(
            id=pending.notice.id,
            at=int(time.time() * 1000),
            attempt=pending.attempt,
            outcome=outcome.kind.value,
            status=outcome.status,
            detail=outcome.detail,
            seconds=round(outcome.seconds, 3),
        )
        news.attempts = [*news.attempts[-_HISTORY + 1 :], attempt]
        if outcome.kind is Kind.DELIVERED:
            news.delivered += 1
            return []
        news.failed += 1
        news.last_error = outcome.detail or None
        if outcome.kind is Kind.GONE:
            reason = f"The subscriber answered {outcome.status}: it is gone for good."
            await self._call(lambda: self._subscriptions.disable(pending.address, subscription.id, reason))
        if outcome.kind is Kind.RETRY and (again := self._next(job, outcome)) is not None:
            return [again]
        await self._call(lambda: self._deliveries.bury(pending))
        self._newest(subscription).dead += 1  # what is noted may have gone to the store meanwhile
        return []

    def _next(self, job: _Job, outcome: Outcome) -> tuple[PendingDelivery, int] | None:
        """Return when to try again what did not get through; None where that was the last time."""
        pending = job.pending
        policy = policy_for(job.policy, job.subscription.options.get("_retry_policy"))
        if job.resting:  # no attempt is spent, but neither does it last longer than with attempts
            over = (pending.replayed or pending.posted) + 1000 * sum(policy.delays())
            return None if time.time() * 1000 > over else (pending, math.ceil(job.resting))
        delay = policy.next_delay(pending.attempt)
        if delay is None:
            return None
        wait = max(jitter(delay, self._random), outcome.retry_after or 0.0)
        return replace(pending, attempt=pending.attempt + 1), round(wait)

    def _newest(self, subscription: Subscription) -> _News:
        return self._news.setdefault((subscription.address, subscription.id), _News())

    async def _flush_often(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await _pause(stop, _FLUSH)
            await self._flush()

    async def _flush(self) -> None:
        news, self._news = self._news, {}
        for (address, subscription_id), each in news.items():
            try:
                await self._call(partial(self._deliveries.note, address, subscription_id, each.counts()))
            except HermodError as error:
                _log.warning("cannot note deliveries", reason=str(error))
                self._news.setdefault((address, subscription_id), _News()).add_older(each)

    async def _call(self, work: Callable[[], T]) -> T:
        """Run something that waits for a store in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _parse(body: bytes) -> Json:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:  # a number beyond all floats
        return json.loads(body)


def _delivery(job: _Job) -> Delivery:
    pending, subscription = job.pending, job.subscription
    return Delivery(
        id=pending.notice.id,
        subscription_id=subscription.id,
        project=pending.address.project,
        queue=pending.address.queue,
        subscriber=subscription.subscriber,
        options=subscription.options if pending.options is None else pending.options,
        payload=pending.payload or notification(pending.notice, pending.address.queue),
        body=pending.notice.body,
        attempt=pending.attempt,
    )


async def _pause(bell: asyncio.Event, seconds: float) -> None:
    """Wait for a while, or until an event is set."""
    try:
        await asyncio.wait_for(bell.wait(), seconds)
    except TimeoutError:
        return
