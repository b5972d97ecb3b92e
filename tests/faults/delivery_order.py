"""The checkers of when, and in which order, claims and pops hand out messages."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.history import FOREVER, Operation
from tests.faults.leases import Leases
from tests.faults.load import DEAD, DELAY, JOBS, TASKS
from tests.faults.removals import perhaps_removed
from tests.faults.verdict import SETTLED, SLACK, Verdict, chosen, delivered, disturbances, jumps, overlaps


def delivery_order(history: Sequence[Operation]) -> Verdict:
    """A claim, or a pop, takes the oldest messages that are free.

    Looked at are those at times when nothing was wrong, for otherwise a message may be
    in a claim of which nobody was told. A message is free for sure during a claim if it was
    posted before and its delay is over, nobody has asked for its deletion, and each claim that had it is over or
    came later.
    """
    problems = []
    checked = 0
    unclear = [(start, end + SETTLED) for start, end in disturbances(history)]
    leases = Leases(history)
    tenants = sorted({each.tenant for each in chosen(history, "post")})
    for tenant, queue in itertools.product(tenants, (JOBS, TASKS)):
        lost = [(each.started, each.ended + SETTLED) for each in _lost(history, queue)]
        for claim, waiting in _claims(history, tenant, queue, leases, unclear + lost):
            checked += 1
            passed = [value for value, is_free in waiting if is_free]
            if passed:
                problems.append(f"{claim.process} of {tenant} was not given {passed[0]}, which is older")
    return Verdict(name="oldest first", problems=tuple(problems), numbers={"claims": checked})


def delays(history: Sequence[Operation]) -> Verdict:
    """Nobody is given a message before its delay is over."""
    problems = []
    due: dict[tuple[str, str], float] = {}
    for post in chosen(history, "post"):
        for value in post.asked["values"] if post.asked["delay"] else ():
            # If it was posted again and again, any attempt may be the one that stored it.
            due.setdefault((post.tenant, value), post.started + post.asked["delay"] - SLACK)
    jumped = jumps(history)
    for claim in chosen(history, "claim", "pop", outcome="ok"):
        for _, value in delivered(claim):
            end = due.get((claim.tenant, value), 0.0)
            if claim.ended < end and not overlaps(end - DELAY, claim.ended, jumped):
                problems.append(
                    f"{claim.process} of {claim.tenant} got {value} {end - claim.ended:.3f} s early"
                )
    return Verdict(name="delays kept", problems=tuple(problems), numbers={"delayed": len(due)})


def _lost(history: Sequence[Operation], queue: str) -> Iterator[Operation]:
    for each in chosen(history, "claim", "renew", "release", "pop", queue=queue):
        if each.outcome == "unknown":
            yield each


def _claims(
    history: Sequence[Operation],
    tenant: str,
    queue: str,
    leases: Leases,
    unclear: Sequence[tuple[float, float]],
) -> Iterator[tuple[Operation, list[tuple[str, bool]]]]:
    """Yield the claims and pops at clear times, each with the older messages that it did not get, and whether they were free."""
    claims = list(chosen(history, "claim", "pop", tenant=tenant, queue=queue, outcome="ok"))
    had: dict[str, list[Operation]] = defaultdict(list)
    deleted: dict[str, float] = {}
    for claim in claims:
        for id_, _ in delivered(claim):
            if claim.name == "claim":
                had[id_].append(claim)
            else:
                deleted.setdefault(id_, claim.started)
    for each in chosen(history, "delete", tenant=tenant, queue=queue):
        deleted[each.asked["id"]] = min(each.started, deleted.get(each.asked["id"], FOREVER))
    gone = {
        value
        for each in chosen(history, "list", tenant=tenant, queue=DEAD, outcome="ok")
        for _, value in delivered(each)
    }
    gone |= perhaps_removed(history, tenant, queue)
    posts = sorted(chosen(history, "post", tenant=tenant, queue=queue, outcome="ok"), key=_free_from)
    waiting: dict[str, str] = {}  # id: value
    number = 0
    for claim in claims:
        while number < len(posts) and _free_from(posts[number]) < claim.started:
            ids, values = posts[number].answered["ids"], posts[number].asked["values"]
            waiting |= {i: v for i, v in zip(ids, values, strict=True) if v not in gone}
            number += 1
        waiting = {i: v for i, v in waiting.items() if deleted.get(i, FOREVER) > claim.started}
        ids = claim.answered["ids"]
        if not ids or overlaps(claim.started, claim.ended, unclear):
            continue
        if ids != sorted(ids):
            yield claim, [(claim.answered["values"][0], True)]
        yield (
            claim,
            [
                (value, _is_free(id_, claim, had[id_], deleted, leases))
                for id_, value in waiting.items()
                if id_ < max(ids) and id_ not in ids
            ],
        )


def _free_from(post: Operation) -> float:
    delay: float = post.asked["delay"]
    return post.ended + delay + (SLACK if delay else 0)


def _is_free(
    id_: str, claim: Operation, had: Sequence[Operation], deleted: dict[str, float], leases: Leases
) -> bool:
    if deleted.get(id_, FOREVER) <= claim.ended:
        return False
    return all(other.started > claim.ended or leases.over_from(other) < claim.started for other in had)
