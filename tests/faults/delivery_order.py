"""The checker of the order in which claims hand out messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.history import FOREVER, Operation
from tests.faults.leases import Leases
from tests.faults.load import DEAD, DELAY, JOBS
from tests.faults.verdict import SLACK, Verdict, chosen, delivered, disturbances, jumps, overlaps

SETTLED = 8.0  # seconds after which requests that were lost have no effect any more


def delivery_order(history: Sequence[Operation]) -> Verdict:
    """A claim takes the oldest messages that are free.

    Looked at are claims at times when nothing was wrong, for otherwise a message may be
    in a claim of which nobody was told. A message is free for sure during a claim if it was
    posted before and its delay is over, nobody has asked for its deletion, and each claim that had it is over or
    came later.
    """
    problems = []
    checked = 0
    unclear = [(start, end + SETTLED) for start, end in disturbances(history)]
    unclear += [(lost.started, lost.ended + SETTLED) for lost in _lost(history)]
    leases = Leases(history)
    for tenant in sorted({each.tenant for each in chosen(history, "post")}):
        for claim, waiting in _claims(history, tenant, leases, unclear):
            checked += 1
            passed = [value for value, is_free in waiting if is_free]
            if passed:
                problems.append(f"{claim.process} of {tenant} was not given {passed[0]}, which is older")
    return Verdict(name="oldest first", problems=tuple(problems), numbers={"claims": checked})


def delays(history: Sequence[Operation]) -> Verdict:
    """Nobody is given a message before its delay is over."""
    problems = []
    due: dict[tuple[str, str], float] = {}
    for post in chosen(history, "post", queue=JOBS):
        for value in post.asked["values"] if post.asked["delay"] else ():
            # If it was posted again and again, any attempt may be the one that stored it.
            due.setdefault((post.tenant, value), post.started + post.asked["delay"] - SLACK)
    jumped = jumps(history)
    for claim in chosen(history, "claim", queue=JOBS, outcome="ok"):
        for _, value in delivered(claim):
            end = due.get((claim.tenant, value), 0.0)
            if claim.ended < end and not overlaps(end - DELAY, claim.ended, jumped):
                problems.append(
                    f"{claim.process} of {claim.tenant} got {value} {end - claim.ended:.3f} s early"
                )
    return Verdict(name="delays kept", problems=tuple(problems), numbers={"delayed": len(due)})


def _lost(history: Sequence[Operation]) -> Iterator[Operation]:
    for each in chosen(history, "claim", "renew", "release", queue=JOBS):
        if each.outcome == "unknown":
            yield each


def _claims(
    history: Sequence[Operation], tenant: str, leases: Leases, unclear: Sequence[tuple[float, float]]
) -> Iterator[tuple[Operation, list[tuple[str, bool]]]]:
    """Yield the claims at clear times, each with the older messages that it did not get, and whether they were free."""
    claims = list(chosen(history, "claim", tenant=tenant, queue=JOBS, outcome="ok"))
    had: dict[str, list[Operation]] = defaultdict(list)
    for claim in claims:
        for id_, _ in delivered(claim):
            had[id_].append(claim)
    deleted: dict[str, float] = {}
    for each in chosen(history, "delete", tenant=tenant, queue=JOBS):
        deleted.setdefault(each.asked["id"], each.started)
    dead = {
        value
        for each in chosen(history, "list", tenant=tenant, queue=DEAD, outcome="ok")
        for _, value in delivered(each)
    }
    posts = sorted(chosen(history, "post", tenant=tenant, queue=JOBS, outcome="ok"), key=_free_from)
    waiting: dict[str, str] = {}  # id: value
    number = 0
    for claim in claims:
        while number < len(posts) and _free_from(posts[number]) < claim.started:
            ids, values = posts[number].answered["ids"], posts[number].asked["values"]
            waiting |= {i: v for i, v in zip(ids, values, strict=True) if v not in dead}
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
