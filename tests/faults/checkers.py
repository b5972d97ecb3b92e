"""Checkers of what was posted, and of what became of it. Each is a pure function of a history."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests.faults.history import Operation
from tests.faults.leases import Leases
from tests.faults.load import DEAD, JOBS, MAX_CLAIMS, NEWS, SCRATCH, is_poison
from tests.faults.removals import Removals, came_out, missing
from tests.faults.verdict import Verdict, chosen, delivered, left, place, queues

History = Sequence[Operation]


def total_queue(history: History) -> Verdict:
    """Whatever was posted and answered comes out, and nothing else does.

    A value has come out when the deletion of its message was asked for by somebody
    who may have had the lease, when a pop brought it, or when it is a dead letter. What was
    handed out and then vanished has not. Of NEWS, which is not consumed, it is what is there
    at the end. A purge, or a pop whose answer was lost, explains what it can have taken, and
    nothing else.
    """
    problems: list[str] = []
    names = (
        "attempted",
        "acknowledged",
        "lost",
        "unexpected",
        "duplicated",
        "recovered",
        "popped unseen",
        "purged",
    )
    numbers = Counter(dict.fromkeys(names, 0))
    for tenant, queue in queues(history):
        posts = list(chosen(history, "post", tenant=tenant, queue=queue))
        attempted = {value for post in posts for value in post.asked["values"]}
        acknowledged = {v for post in posts if post.outcome == "ok" for v in post.asked["values"]}
        takes = chosen(history, "claim", "pop", tenant=tenant, queue=queue, outcome="ok")
        handed = Counter(value for take in takes for _, value in delivered(take))
        out = came_out(history, tenant, queue)
        gone = missing(history, tenant, queue)
        lost = Removals(history, tenant, queue).unexplained(gone)
        unexpected = (out | handed.keys()) - attempted
        problems += [f"lost: {value} of {tenant}'s {queue}" for value in sorted(lost)]
        problems += [f"unexpected: {value} in {tenant}'s {queue}" for value in sorted(unexpected)]
        numbers["attempted"] += len(attempted)
        numbers["acknowledged"] += len(acknowledged)
        numbers["lost"] += len(lost)
        numbers["purged" if queue == SCRATCH else "popped unseen"] += len(gone) - len(lost)
        numbers["unexpected"] += len(unexpected)
        numbers["duplicated"] += sum(count - 1 for value, count in handed.items() if not is_poison(value))
        numbers["recovered"] += len((out - acknowledged) & attempted)
    return Verdict(name="total queue", problems=tuple(problems), numbers=dict(numbers))


def acked_stays_acked(history: History) -> Verdict:
    """A message whose deletion was answered with success, or that a pop brought, never appears again."""
    problems = []
    gone: dict[tuple[str, str, str], float] = {}
    acked: dict[tuple[str, str], float] = {}
    popped: set[tuple[str, str, str]] = set()
    leases = Leases(history)
    for each in chosen(history, "delete", outcome="ok"):
        key = (each.tenant, each.queue, each.asked["id"])
        gone[key] = min(each.ended, gone.get(key, each.ended))
        if leases.is_timely(each):
            acked[each.tenant, each.asked["value"]] = each.ended
    for each in chosen(history, "pop", outcome="ok"):
        for id_, value in delivered(each):
            key = (each.tenant, each.queue, id_)
            if key in popped:
                problems.append(f"{value} of {each.tenant} was popped twice")
            popped.add(key)
            gone[key] = min(each.ended, gone.get(key, each.ended))
    for each in chosen(history, "claim", "pop", "list", outcome="ok"):
        for id_, value in delivered(each):
            if each.started > gone.get((each.tenant, each.queue, id_), each.started):
                problems.append(f"{value} of {each.tenant} was deleted, and appears again")
            if each.queue == DEAD and (each.tenant, value) in acked:
                problems.append(f"{value} of {each.tenant} was deleted, and is a dead letter")
    return Verdict(name="acked stays acked", problems=tuple(problems), numbers={"deletions": len(gone)})


def idempotent_posts(history: History) -> Verdict:
    """A post that is repeated with its key is stored once and answered the same; no value is there twice."""
    problems = []
    answers: dict[tuple[str, str, str], set[tuple[str, ...]]] = defaultdict(set)
    attempts: Counter[tuple[str, str, str]] = Counter()
    ids: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for each in chosen(history, "post"):
        if key := each.asked["key"]:
            attempts[each.tenant, each.queue, key] += 1
            if each.outcome == "ok":
                answers[each.tenant, each.queue, key].add(tuple(each.answered["ids"]))
    for each in chosen(history, "post", "claim", "pop", "list", outcome="ok"):
        values = each.asked["values"] if each.name == "post" else each.answered["values"]
        for id_, value in zip(each.answered["ids"], values, strict=True):
            ids[each.tenant, each.queue, value].add(id_)
    for (tenant, queue, key), found in answers.items():
        if len(found) > 1:
            problems.append(f"the post {key} to {tenant}'s {queue} was answered in {len(found)} ways")
    for (tenant, queue, value), known in ids.items():
        if len(known) > 1:
            problems.append(f"{value} is {len(known)} times in {tenant}'s {queue}")
    repeated = sum(count > 1 for count in attempts.values())
    return Verdict(name="idempotent posts", problems=tuple(problems), numbers={"repeated": repeated})


def dead_letters(history: History) -> Verdict:
    """What nobody deletes is a dead letter once, after it was handed out so many times, and nothing is so twice."""
    problems = []
    count = 0
    for tenant, queue in queues(history):
        if queue != JOBS:
            continue
        dead = Counter(left(history, tenant, DEAD))
        count += dead.total()
        posts = chosen(history, "post", tenant=tenant, queue=queue, outcome="ok")
        poison = {value for post in posts for value in post.asked["values"] if is_poison(value)}
        claims = chosen(history, "claim", tenant=tenant, queue=queue, outcome="ok")
        handed = Counter(value for claim in claims for _, value in delivered(claim))
        problems += [f"{value} of {tenant} is no dead letter" for value in sorted(poison - dead.keys())]
        problems += [f"{value} of {tenant} is {n} dead letters" for value, n in dead.items() if n > 1]
        problems += [
            f"{value} of {tenant} was handed out {n} times" for value, n in handed.items() if n > MAX_CLAIMS
        ]
    return Verdict(name="dead letter exactly once", problems=tuple(problems), numbers={"dead letters": count})


def conservation(history: History) -> Verdict:
    """At the end every place of a queue is accounted for, and the statistics say what is there.

    The last post of a queue tells how many messages were ever stored in it.
    """
    problems = []
    stored = 0
    for tenant, queue in queues(history):
        seen: dict[str, str] = {}
        shown = ("post", "claim", "pop", "list")
        for each in chosen(history, *shown, tenant=tenant, queue=queue, outcome="ok"):
            values = each.asked["values"] if each.name == "post" else each.answered["values"]
            seen.update(zip(each.answered["ids"], values, strict=True))
        generations = {id_[16:] for id_ in seen}
        if len(generations) > 1:
            problems.append(f"{tenant}'s {queue} came into being {len(generations)} times")
        places = {place(id_) for id_ in seen}
        last = max(places, default=0)
        stored += last
        # A message of which only claims told whose answers were lost can end as a dead letter without being seen.
        unseen = set(left(history, tenant, DEAD)) - set(seen.values()) if queue == JOBS else set()
        absent = set(range(1, last + 1)) - places
        # What pops and purges took that nobody was shown is either of those, or an answered post's.
        both: dict[Any, float] = {**missing(history, tenant, queue), **dict.fromkeys(absent, 0.0)}
        unexplained = [
            thing for thing in Removals(history, tenant, queue).unexplained(both) if thing in absent
        ]
        if len(unexplained) != len(unseen):
            what = f"{len(absent)} places of {tenant}'s {queue} were never seen, {sorted(absent)[:5]}"
            removed = len(absent) - len(unexplained)
            problems.append(
                f"{what}, and {len(unseen)} are explained by dead letters, {removed} by pops and purges"
            )
    for each in _last_of_each(history, "stats"):
        there = len(left(history, each.tenant, each.queue))
        if each.answered["total"] != there or each.answered["claimed"] != 0:
            problems.append(
                f"{each.tenant}'s {each.queue} has {there}, and its statistics say {each.answered}"
            )
    return Verdict(name="conservation", problems=tuple(problems), numbers={"stored": stored})


def isolation(history: History) -> Verdict:
    """No value of a tenant ever comes to another one."""
    problems = []
    looked = 0
    for each in chosen(history, "claim", "pop", "list", "delivery", "frame", outcome="ok"):
        for value in (*each.answered.get("values", ()), *_single(each)):
            looked += 1
            if not value.startswith(f"{each.tenant}/"):
                problems.append(f"{each.process} of {each.tenant} got {value}")
    return Verdict(name="tenants isolated", problems=tuple(problems), numbers={"values": looked})


#: What may be answered with 4xx: a lease that is over, or somebody else's by now.
_REFUSALS = {"delete": {400, 403}, "renew": {404}}


def answers(history: History) -> Verdict:
    """Nothing is answered but what the documentation says, and no service ends by itself."""
    problems = []
    unavailable = 0
    for each in history:
        status = each.answered.get("status", 0)
        unavailable += status == 503 and each.name != "delivery"
        meant = each.name == "delivery" or status in _REFUSALS.get(each.name, ())
        if status >= 400 and status != 503 and not meant:
            problems.append(f"{each.process} of {each.tenant}: {each.name} was answered with {status}")
        if each.name in ("ended", "exit", "failure"):
            problems.append(f"{each.process}: {each.name} {each.answered}")
    return Verdict(name="answers", problems=tuple(problems), numbers={"unavailable": unavailable})


def follows(history: History) -> Verdict:
    """Whoever follows a queue from marker to marker sees each place, in order, and misses none."""
    problems = []
    pages = 0
    position: dict[str, int] = {}
    for each in sorted(chosen(history, "list", queue=NEWS, outcome="ok"), key=lambda page: page.ended):
        follower = f"{each.process} of {each.tenant}"
        pages += bool(each.answered["ids"])
        after = place(each.asked["marker"]) if each.asked["marker"] else 0
        found = [place(id_) for id_ in each.answered["ids"]]
        if found != list(range(after + 1, after + 1 + len(found))):
            problems.append(f"{follower}: behind {after} came {found[:5]}")
        if after != position.get(follower, 0) and after:
            problems.append(f"{follower} went on at {after}, and was at {position.get(follower, 0)}")
        position[follower] = found[-1] if found else after
    return Verdict(name="no gaps behind a marker", problems=tuple(problems), numbers={"pages": pages})


def _single(each: Operation) -> tuple[str, ...]:
    return (each.answered["value"],) if "value" in each.answered else ()


def _last_of_each(history: History, name: str) -> list[Operation]:
    return list({(o.tenant, o.queue): o for o in chosen(history, name, outcome="ok")}.values())
