"""Checkers of what subscribers were told, and of how long nobody was answered."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

from tests.faults.history import FOREVER, Operation
from tests.faults.load import NEWS
from tests.faults.verdict import Verdict, chosen

History = Sequence[Operation]

#: What clients ask a REST service for.
REQUESTS = ("post", "claim", "delete", "release", "renew", "pop", "purge", "list", "stats")


def webhooks(history: History) -> Verdict:
    """Each subscriber took each message, or finds it among what was given up; one message has one id."""
    problems = []
    deliveries = 0
    for tenant in _tenants(history):
        ids: dict[str, set[str]] = defaultdict(set)
        taken = set()
        for each in chosen(history, "delivery", tenant=tenant):
            deliveries += 1
            ids[each.answered["value"]].add(each.answered["id"])
            if each.answered["status"] < 300:
                taken.add(each.answered["value"])
        given_up = {
            value for each in chosen(history, "given up", tenant=tenant) for value in each.answered["values"]
        }
        told = _told(history, tenant)
        problems += [
            f"{tenant}'s webhook was never told of {value}" for value in sorted(told - taken - given_up)
        ]
        problems += [f"{value} of {tenant} has {len(n)} ids" for value, n in ids.items() if len(n) > 1]
        if len(set().union(*ids.values())) < len(ids):
            problems.append(f"several messages of {tenant} have one id")
        problems += [
            f"{tenant}'s webhook was told of {v}" for v in sorted(ids.keys() - _tried(history, tenant))
        ]
    return Verdict(name="webhooks complete", problems=tuple(problems), numbers={"deliveries": deliveries})


def pushes(history: History) -> Verdict:
    """Whoever resumes sees each message once, under consecutive numbers, in the order that all see."""
    frames: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for each in chosen(history, "frame"):
        frames[each.tenant, each.process].append((each.answered["sequence"], each.answered["value"]))
    problems = [
        f"{each.process} missed something behind {each.answered['seen']}"
        for each in chosen(history, "missed")
    ]
    resumed = 0
    for each in chosen(history, "resume"):
        resumed += each.outcome == "ok"
        if each.outcome == "fail" or each.answered.get("gap"):
            problems.append(f"{each.process} could not resume: {each.answered}")
    for tenant in _tenants(history):
        told = _told(history, tenant)
        orders = set()
        for process in sorted({each.process for each in chosen(history, "resume", tenant=tenant)}):
            seen = frames[tenant, process]
            if [number for number, _ in seen] != list(range(1, len(seen) + 1)):
                problems.append(f"the numbers that {process} saw are not consecutive")
            values = [value for _, value in seen]
            if len(set(values)) < len(values):
                problems.append(f"{process} was told something under two numbers")
            problems += [f"{process} was never told of {value}" for value in sorted(told - set(values))]
            orders.add(tuple(values))
        if len(orders) > 1:
            problems.append(f"subscribers of {tenant} saw different orders")
    count = sum(map(len, frames.values()))
    return Verdict(
        name="pushes complete", problems=tuple(problems), numbers={"frames": count, "resumed": resumed}
    )


def availability(history: History) -> Verdict:
    """How long no post, and no request at all, was answered with success; there is no rule for it."""
    taken = [each.ended - each.started for each in chosen(history, *REQUESTS) if each.ended < FOREVER]
    numbers = {
        "s without a post at most": _longest_gap(history, "post"),
        "s without any answer at most": _longest_gap(history, *REQUESTS),
        "s for a request at most": round(max(taken, default=0.0), 2),
    }
    return Verdict(name="availability", numbers=numbers)


def _longest_gap(history: History, *names: str) -> float:
    ended = sorted(each.ended for each in chosen(history, *names, outcome="ok"))
    return round(max((b - a for a, b in itertools.pairwise(ended)), default=0.0), 2)


def _tenants(history: History) -> list[str]:
    return sorted({each.tenant for each in chosen(history, "post")})


def _told(history: History, tenant: str) -> set[str]:
    """Return what subscribers have to be told of."""
    posts = chosen(history, "post", tenant=tenant, queue=NEWS, outcome="ok")
    return {value for post in posts for value in post.asked["values"]}


def _tried(history: History, tenant: str) -> set[str]:
    return {v for post in chosen(history, "post", tenant=tenant, queue=NEWS) for v in post.asked["values"]}
