"""The worker: takes tickets and pending deliveries, tells subscribers, keeps what has to be tried again.

A batch is settled when each of its deliveries got through, was given up, or is kept.
A subscriber that takes its time holds nothing up: after a moment, what is under way
is kept too, to be due when the attempt must have ended, and the copy is dropped when
it has. So a crash at any instant repeats deliveries and loses none.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random, SystemRandom
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from notifiers.breaker import Breaker, BreakerSettings, Circuit, circuits_of
from notifiers.outcome import Delivery, Kind, Notifier, Outcome
from notifiers.room import Gate, Shares, Turns
from queues.bodies import parse as parse_body
from queues.crashes import reach
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
from queues.retries import RetryPolicy, jitter, policy_for
from queues.service.deliveries import Batch, Box, DeliveryService
from queues.service.pushes import PushService
from queues.service.subscriptions import Audience, SubscriptionService
from queues.service.waiting import Line, bell_of, ringing
from queues.tickets import TTL, notification

T = TypeVar("T")

_log = structlog.get_logger()

_FLUSH = 1.0  # seconds between two notes of what became of deliveries
_FIRST = 10  # tickets leased at once, before it is known how many subscribers they have
_BUSY = 0.05  # seconds after a batch during which a box counts as busy
_GATHER = 0.01  # seconds that tickets have to gather in a busy box
_PART = 500  # deliveries of a batch that are concluded together
_PARTS = 32  # of them under way at once
_BLOCKED = 1  # seconds after which what could not begin is looked at again
_PACE = 100  # of a project's in a second at most
_MOST_LOOKS = 1000  # projects of which it is remembered
_LONGEST_WAIT = 300.0  # seconds; where there are more than that makes, they come faster
_QUICK = 0.1  # seconds after which an attempt holds up no other of its project at the same host
_STAGGER = (1.0, 1.2)  # of a pause, until what waits for its end comes back
_LAST_CALL = 600  # seconds that a last attempt looks for room at an endpoint that fails
_HISTORY = 20  # attempts of a subscription that are noted at once at most
_MARGIN = 5.0  # seconds that an attempt may take beyond its timeouts
_RESTING = "The endpoint failed too often of late; it is left alone for a while."
_NO_ROOM = "Given up without a last attempt: those before it take too long."
_BROKEN = "The attempt failed within the service."
_END = 15.0  # seconds that deliveries have to end when the worker is told to stop


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """How much a worker does at once."""

    in_flight: int = 1000  # deliveries under way, in this process; half of them for one project at most
    per_subscriber: int = (
        32  # of them to one subscriber that is quick; a project begins as many at a host at a time
    )
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
    taken: int  # ms; when the batch was
    started: float = 0.0  # when the attempt began (seconds, monotonic); 0 before that
    slow: bool = False  # whether it takes its time
    rest: float = 0.0  # seconds for which the endpoint is left alone, so that no attempt was made
    out_of_turn: bool = False  # whether one was made though the endpoint is left alone, for it was the last


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


@dataclass(slots=True)
class _Course:
    """How far a batch has come."""

    taken: float  # seconds, monotonic
    begun: bool = False  # whether some of its deliveries are


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
        self._shares = Shares(settings.in_flight)
        self._turns = Turns(settings.per_subscriber, quick=_QUICK)
        self._open = 0  # deliveries that were taken, and neither concluded nor left to a copy
        self._parts = asyncio.Semaphore(_PARTS)
        self._room = asyncio.Event()  # set while there are not too many of them
        self._room.set()
        self._gates: WeakValueDictionary[str, Gate] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bells: set[asyncio.Event] = set()  # rung where there may be something to do
        self._next_looks: dict[
            str, float
        ] = {}  # by project: when the last of those without room is looked at
        self._news: dict[tuple[Address, str], _News] = {}
        self._filters: dict[bytes, Filter] = {}
        self._breaker = Breaker(BreakerSettings(), time.monotonic)
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, and end what is under way."""
        pumps: dict[Box, asyncio.Task[None]] = {}
        flusher = asyncio.create_task(self._flush_often(stop))
        while not stop.is_set():
            for box in await self._boxes():
                if box not in pumps or pumps[box].done():
                    pumps[box] = asyncio.create_task(self._pump(box, stop))
            await ringing(stop, _FLUSH)
        self._stopping = True
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
        pause, limit, taken = 0.0, _FIRST, 0.0
        try:
            while not stop.is_set():
                await self._room.wait()
                if time.monotonic() - taken < _BUSY:  # more comes, and many at once cost less than one by one
                    await asyncio.sleep(_GATHER)
                if stop.is_set():  # the bell was rung for that, and is about to be forgotten
                    break
                bell.clear()
                begun = time.monotonic()
                try:
                    batch = await self._call(partial(self._deliveries.take, box, limit))
                    if batch is None:
                        follow = partial(self._deliveries.follow, box, line)
                        due = await self._call(partial(follow, since=time.monotonic() - begun))
                    pause = 0.0
                except HermodError as error:
                    _log.warning("cannot take deliveries", pool=box.pool, reason=str(error))
                    pause = min(2 * pause + 0.1, self._settings.longest_pause)
                    await ringing(stop, pause)
                    continue
                if batch is None:
                    await ringing(bell, min(due, self._settings.longest_pause))
                else:
                    taken = time.monotonic() if _is_small(batch) else 0.0
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
            try:
                await self._deliver(batch, jobs)
            except asyncio.CancelledError:  # it did not end in time
                await self._give_back(batch)
                raise
        except HermodError as error:  # the lease ends, and somebody does it again
            _log.warning("cannot settle deliveries", pool=batch.pool, reason=str(error))
        except Exception:
            _log.exception("a batch of deliveries failed", pool=batch.pool)

    async def _give_back(self, batch: Batch) -> None:
        await self._call(partial(self._deliveries.give_back, batch))

    async def _deliver(self, batch: Batch, jobs: Sequence[_Job]) -> None:
        """Make the deliveries of a batch, and settle it; or give it back, if there is no time to begin."""
        reach("notifier.taken")
        course = _Course(time.monotonic())
        parts = [jobs[first : first + _PART] for first in range(0, len(jobs), _PART)]
        await asyncio.gather(*(self._deliver_in_turn(batch.pool, part, course) for part in parts))
        if parts and not course.begun:
            await self._give_back(batch)
            return
        reach("notifier.kept")
        everything = [ticket.id for ticket in batch.tickets] + [each.id for each in batch.pending]
        await self._call(partial(self._deliveries.settle, batch, everything))
        reach("notifier.settled")

    async def _deliver_in_turn(self, pool: str, jobs: Sequence[_Job], course: _Course) -> None:
        """Make some deliveries of a batch when there is room for them, and before its lease can end."""
        try:
            async with self._parts:
                if self._stopping and not course.begun:
                    return
                course.begun = True
                if time.monotonic() - course.taken < self._deliveries.lease / 3:
                    await self._deliver_part(pool, jobs)
                else:
                    await self._keep(pool, [(job.pending, 0) for job in jobs])
        finally:
            self._count(-len(jobs))

    async def _deliver_part(self, pool: str, jobs: Sequence[_Job]) -> None:
        kept, able = await self._put_off_stuck(jobs)
        attempts = {asyncio.create_task(self._attempt(job)): job for job in able}
        try:
            done, waiting = await _wait(attempts, self._settings.patience)
        except asyncio.CancelledError:  # they would go on by themselves
            for task in attempts:
                task.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
            raise
        reach("notifier.attempted")
        slow = [task for task in waiting if attempts[task].started]
        for task in slow:
            self._note_slow(attempts[task])
        for task in done:
            kept += await self._conclude(attempts[task], task.result())
        for task in waiting.difference(slow):
            task.cancel()
            kept += await self._put_off(attempts[task])
        reach("notifier.concluded")
        hold = round(self._settings.timeout + _MARGIN)
        ids = await self._keep(pool, [*((attempts[task].pending, hold) for task in slow), *kept])
        for task, id_ in zip(slow, ids, strict=False):
            self._spawn(self._finish(pool, task, attempts[task], id_))

    async def _put_off_stuck(
        self, jobs: Sequence[_Job]
    ) -> tuple[list[tuple[PendingDelivery, int]], list[_Job]]:
        """Sort out what would only wait behind slow attempts, and keep the others on their batch waiting too.

        Return what has to be kept of it, and the jobs that can be done.
        """
        kept: list[tuple[PendingDelivery, int]] = []
        able: list[_Job] = []
        for job in jobs:
            gate = self._gates.get(job.subscription.id)
            if (gate is not None and gate.is_stuck()) or self._shares.is_stuck(job.pending.address.project):
                kept += await self._put_off(job)
            else:
                able.append(job)
        return kept, able

    async def _put_off(self, job: _Job) -> list[tuple[PendingDelivery, int]]:
        """Return when to look again at what found no room; nothing if that has been going on for too long."""
        if self._is_hopeless(job):
            return await self._conclude(job, Outcome(kind=Kind.REJECTED, detail=_NO_ROOM))
        # To look costs something too: however many a project has, they leave time for those of others.
        now, project = time.monotonic(), job.pending.address.project
        if len(self._next_looks) > _MOST_LOOKS:
            self._next_looks = {name: at for name, at in self._next_looks.items() if at > now}
        at = max(now + _BLOCKED, self._next_looks.get(project, 0.0) + 1 / _PACE)
        self._next_looks[project] = at = min(at, now + _LONGEST_WAIT)
        return [(job.pending, round(at - now))]

    def _is_hopeless(self, job: _Job) -> bool:
        """Whether a delivery has looked for room, after its last attempt was due, for so long that it is given up."""
        if job.taken - job.pending.begun <= 1000 * _LAST_CALL:
            return False
        late = job.taken - self._last_due(job)
        fails = self._breaker.is_open(*circuits_of(job.subscription.id, job.subscription.subscriber))
        return late > 1000 * (_LAST_CALL if fails else TTL)

    def _note_slow(self, job: _Job) -> None:
        """Note that an attempt takes its time, unless it has but begun."""
        if time.monotonic() - job.started > self._settings.patience / 2:
            job.slow = True
            self._gate(job).slow()
            self._shares.slow(job.pending.address.project)

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
            jobs += self._expand(ticket, audience, batch.taken)
        for pending in batch.pending:
            audience = audiences[pending.address]
            found = audience.by_id.get(pending.subscription_id)
            if found is not None and (pending.payload is not None or self._wants(found)):
                begun = pending if pending.begun else replace(pending, begun=batch.taken)
                jobs.append(_Job(begun, found, audience.retry_policy, batch.taken))
        return jobs

    def _wants(self, subscription: Subscription) -> bool:
        """Whether a subscriber is told of messages now, and not through its connection."""
        unasked = self._settings.require_confirmation and not subscription.confirmed
        return subscription.push is None and subscription.disabled is None and not unasked

    def _expand(self, ticket: Ticket, audience: Audience, taken: int) -> Iterator[_Job]:
        parsed: dict[str, Json] = {}
        for subscription in audience.by_id.values():
            if not self._wants(subscription):
                continue
            wanted = self._filter(subscription)
            for notice in ticket.notices:
                if wanted is not None:
                    if notice.id not in parsed:
                        parsed[notice.id] = parse_body(notice.body)
                    if not wanted.matches(parsed[notice.id]):
                        self._newest(subscription).filtered += 1
                        continue
                pending = PendingDelivery(
                    notice=notice,
                    address=ticket.address,
                    subscription_id=subscription.id,
                    attempt=1,
                    posted=ticket.posted,
                    begun=taken,
                    sealed=ticket.sealed,
                )
                yield _Job(pending, subscription, audience.retry_policy, taken)

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
        gate, project = self._gate(job), job.pending.address.project
        circuits = circuits_of(job.subscription.id, job.subscription.subscriber)
        await gate.enter()
        quick: bool | None = None
        try:
            end_turn = await self._turns.take((project, circuits[0])) if circuits else None
            try:
                outcome = await self._within_share(job, project, circuits)
            finally:
                if end_turn is not None:
                    end_turn()
            quick = None if job.rest else outcome.kind is not Kind.RETRY
        except Exception:  # a mistake of ours, which must not cost others their messages
            _log.exception("an attempt broke down", subscription=job.subscription.id)
            outcome, quick = Outcome(kind=Kind.RETRY, detail=_BROKEN), False
        finally:
            gate.leave(quick=quick)
        return outcome

    async def _within_share(self, job: _Job, project: str, circuits: Sequence[Circuit]) -> Outcome:
        await self._shares.enter(project)
        try:
            job.started = time.monotonic()
            return await self._guarded(job, circuits)
        finally:
            self._shares.leave(project, slow=job.slow)

    def _gate(self, job: _Job) -> Gate:
        """Return the gate of a subscription; it lasts as long as somebody holds it."""
        gate = self._gates.get(job.subscription.id)
        if gate is None:
            gate = self._gates[job.subscription.id] = Gate(self._settings.per_subscriber)
        return gate

    async def _guarded(self, job: _Job, circuits: Sequence[Circuit]) -> Outcome:
        """Make an attempt, unless the endpoint has failed so often that it is left alone for a while.

        The last one is made all the same: nothing is given up untried.
        """
        wait = self._breaker.admit(*circuits)
        if wait > 0:
            job.out_of_turn = job.taken >= self._last_due(job)
            if not job.out_of_turn:
                job.rest = wait
                return Outcome(kind=Kind.RETRY, detail=_RESTING)
        outcome: Outcome | None = None
        try:
            outcome = await self._notifier.deliver(_delivery(job))
        finally:
            self._breaker.report(outcome, *circuits)
        return outcome

    async def _conclude(self, job: _Job, outcome: Outcome) -> list[tuple[PendingDelivery, int]]:
        """Note how an attempt ended; return what has to be kept of it, with the seconds until it is due."""
        pending, subscription = job.pending, job.subscription
        if job.rest:  # no attempt is spent, but neither does it last longer than with attempts
            left = (self._last_due(job) - job.taken) / 1000
            rest = job.rest * self._random.uniform(*_STAGGER)  # so that they do not all come at once
            return [(pending, max(1, math.ceil(min(rest, left))))]
        news = self._newest(subscription)
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
        delay = None if job.out_of_turn else self._policy(job).next_delay(job.pending.attempt)
        if delay is None:
            return None
        wait = max(jitter(delay, self._random), outcome.retry_after or 0.0)
        return replace(job.pending, attempt=job.pending.attempt + 1), round(wait)

    def _policy(self, job: _Job) -> RetryPolicy:
        return policy_for(job.policy, job.subscription.options.get("_retry_policy"))

    def _last_due(self, job: _Job) -> int:
        """Return when the last attempt is due (ms), if all of them fail at once."""
        return job.pending.begun + 1000 * sum(self._policy(job).delays())

    def _newest(self, subscription: Subscription) -> _News:
        return self._news.setdefault((subscription.address, subscription.id), _News())

    async def _flush_often(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await ringing(stop, _FLUSH)
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


async def _wait(
    tasks: Collection[asyncio.Task[Outcome]], seconds: float
) -> tuple[set[asyncio.Task[Outcome]], set[asyncio.Task[Outcome]]]:
    """Wait for tasks, for a while; return those that are done, and the others."""
    return await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())


def _is_small(batch: Batch) -> bool:
    """Whether a batch was all that there was."""
    return len(batch.tickets) + len(batch.pending) < _FIRST
