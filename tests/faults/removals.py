"""Pops and purges: what they took, and what one may have taken whose answer was lost.

A pop whose answer was lost may have taken as many messages as it asked for, and a purge everything; neither could take
what was seen later, by anybody, nor what was in a lease until it was over. What is missing beyond that is lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.faults.history import FOREVER, Operation
from tests.faults.leases import Leases, deleted
from tests.faults.load import DEAD, JOBS, SCRATCH
from tests.faults.verdict import SETTLED, Verdict, chosen, delivered, disturbances, left, overlaps

History = Sequence[Operation]
Thing = TypeVar("Thing")


class Removals:
    """What the pops and purges of a queue may have taken that nobody was shown."""

    def __init__(self, history: History, tenant: str, queue: str) -> None:
        spans = disturbances(history)
        found = chosen(history, "pop", "purge", tenant=tenant, queue=queue)
        self._chances = sorted(
            ((latest(each, spans), _room(each)) for each in found if _room(each)), reverse=True
        )

    def may_have_taken(self, since: float) -> bool:
        """Whether one of them may have taken a thing that was there until an instant at least."""
        return any(latest >= since for latest, _ in self._chances)

    def unexplained(self, missing: Mapping[Thing, float]) -> list[Thing]:
        """Return what none of them can have taken of some things, each of which was there until an instant at least.

        There are as few of them as can be: a removal that can have taken a thing can have taken any that was last there
        before, so that it is enough to count, from the latest on.
        """
        room, number = 0.0, 0
        found = []
        for thing, since in sorted(missing.items(), key=lambda item: item[1], reverse=True):
            while number < len(self._chances) and self._chances[number][0] >= since:
                room += self._chances[number][1]
                number += 1
            if room < 1:
                found.append(thing)
            room = max(0.0, room - 1)
        return found


def latest(removal: Operation, spans: Sequence[tuple[float, float]]) -> float:
    """Return until when a removal may have taken effect; one that was not answered waits in what is disturbed."""
    end = removal.ended
    if removal.outcome == "ok":
        return end
    for begin, finish in sorted(spans):
        if begin <= end + SETTLED:
            end = max(end, finish)
    return end + SETTLED


def missing(history: History, tenant: str, queue: str) -> dict[str, float]:
    """Return the values of a queue that were posted and answered and did not come out, with when they were last there."""
    posts = list(chosen(history, "post", tenant=tenant, queue=queue))
    acknowledged = {value for post in posts if post.outcome == "ok" for value in post.asked["values"]}
    lost = acknowledged - came_out(history, tenant, queue)
    since: dict[str, float] = {}
    for post in posts:
        for value in lost.intersection(post.asked["values"]):
            # Any attempt may be the one that stored it.
            since[value] = min(post.started, since.get(value, FOREVER))
    leases = Leases(history)
    for each in chosen(history, "claim", "list", tenant=tenant, queue=queue, outcome="ok") if lost else ():
        for id_, value in delivered(each):
            if value in lost:
                since[value] = max(since[value], each.started, _leased_until(leases, each, id_))
    return since


def perhaps_removed(history: History, tenant: str, queue: str) -> set[str]:
    """Return the values of which it is not known whether a pop or a purge took them, and when."""
    removals = Removals(history, tenant, queue)
    return {
        value for value, since in missing(history, tenant, queue).items() if removals.may_have_taken(since)
    }


def came_out(history: History, tenant: str, queue: str) -> set[str]:
    """Return the values of a queue that somebody took, or that are left, there or as dead letters."""
    dead = left(history, tenant, DEAD) if queue == JOBS else ()
    pops = chosen(history, "pop", tenant=tenant, queue=queue, outcome="ok")
    popped = (value for pop in pops for _, value in delivered(pop))
    return {*left(history, tenant, queue), *dead, *popped, *deleted(history, tenant, queue)}


@dataclass(frozen=True, kw_only=True, order=True)
class _Stored:
    """A message of SCRATCH that was answered."""

    begun: float  # when it was posted for the first time
    there: float  # when it was there for sure
    id: str
    value: str


def purges(history: History) -> Verdict:
    """A purge takes what was there before, and what no purge can have taken is listed."""
    problems: list[str] = []
    looked = done = 0
    spans = disturbances(history)
    for tenant in sorted({each.tenant for each in chosen(history, "post", queue=SCRATCH)}):
        stored = _stored(history, tenant)
        by_value = {each.value: each for each in stored}
        purged = [each for each in chosen(history, "purge", tenant=tenant, queue=SCRATCH) if _room(each)]
        done += sum(each.outcome == "ok" for each in purged)
        for page in chosen(history, "list", tenant=tenant, queue=SCRATCH, outcome="ok"):
            before = [each for each in purged if each.started < page.ended]
            answered = (p.started for p in before if p.outcome == "ok" and p.ended < page.started)
            gone = max(answered, default=-FOREVER)
            shown = [by_value[value] for value in page.answered["values"] if value in by_value]
            problems += [
                f"{each.value} of {tenant} was purged, and appears again"
                for each in shown
                if each.there < gone
            ]
            doubtful = max((latest(each, spans) for each in before), default=-FOREVER)
            due = list(_due(stored, page, doubtful))
            looked += len(due)
            problems += [
                f"{value} of {tenant} is not listed, and no purge took it"
                for value in due
                if value not in page.answered["values"]
            ]
    return Verdict(name="purges", problems=tuple(problems), numbers={"purges": done, "looked for": looked})


def _stored(history: History, tenant: str) -> list[_Stored]:
    begun: dict[str, float] = {}
    found: dict[str, _Stored] = {}
    for post in chosen(history, "post", tenant=tenant, queue=SCRATCH):
        for value in post.asked["values"]:
            begun.setdefault(value, post.started)
        for value, id_ in zip(post.asked["values"], post.answered.get("ids", ()), strict=False):
            stored = _Stored(begun=begun[value], there=post.ended, id=id_, value=value)
            found[value] = min(stored, found.get(value, stored))
    return sorted(found.values())


def _due(stored: Sequence[_Stored], page: Operation, doubtful: float) -> Iterator[str]:
    """Return what a page has to show: what was there, and not before any purge that may have come between."""
    ids = page.answered["ids"]
    end = ids[-1] if ids and len(ids) >= page.asked["limit"] else ""
    for each in stored[bisect_right(stored, doubtful, key=lambda known: known.begun) :]:
        if each.begun > page.started:
            return
        if each.there < page.started and each.id > page.asked["marker"] and (not end or each.id <= end):
            yield each.value


def _room(removal: Operation) -> float:
    """Return how many messages a removal may have taken that nobody was shown."""
    # Who is not let in has asked for nothing.
    if removal.outcome == "fail" or removal.answered.get("error") == ConnectionRefusedError.__name__:
        return 0
    if removal.name == "purge":
        return FOREVER
    return 0 if removal.outcome == "ok" else float(removal.asked["limit"])


def _leased_until(leases: Leases, each: Operation, id_: str) -> float:
    """Return until when nobody could take a message that a claim or a page brought."""
    if each.name != "claim":
        return each.started
    until = leases.live_until(each, id_)
    return each.started if overlaps(each.started, until, leases.jumps) else until
