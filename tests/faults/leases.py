"""What clients can be sure of about leases, and the checkers of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tests.faults.history import FOREVER, Operation
from tests.faults.load import JOBS
from tests.faults.verdict import SLACK, Verdict, chosen, delivered, jumps, overlaps

History = Sequence[Operation]


class Leases:
    """The claims of a history, and when each was live for sure, or over for sure.

    A lease begins between the claim's invocation and its answer. So it lives for sure
    from the answer until its ttl after the invocation, unless its owner ends it; and
    it is over for sure its ttl after the answer, unless it was renewed, as far as its
    owner knows.
    """

    def __init__(self, history: History) -> None:
        self.claims = {
            (each.tenant, each.answered["claim"]): each
            for each in chosen(history, "claim", outcome="ok")
            if each.answered["claim"]
        }
        self._renewals: dict[tuple[str, str], list[Operation]] = defaultdict(list)
        self._releases: dict[tuple[str, str], list[Operation]] = defaultdict(list)
        self._deletes: dict[tuple[str, str], float] = {}
        for each in chosen(history, "renew", "release", "delete"):
            claim = (each.tenant, each.asked["claim"])
            if each.name == "renew" and each.outcome != "fail":
                self._renewals[claim].append(each)
            elif each.name == "release":
                self._releases[claim].append(each)
            elif each.name == "delete":
                self._deletes.setdefault((each.tenant, each.asked["id"]), each.started)
        self.jumps = jumps(history)

    def live_until(self, claim: Operation, id_: str) -> float:
        """Return until when a message was in this claim for sure, if the claim's answer came before."""
        return min(self._live_until(claim), self._deletes.get((claim.tenant, id_), FOREVER) - SLACK)

    def _live_until(self, claim: Operation) -> float:
        key = (claim.tenant, claim.answered["claim"])
        end: float = claim.started + claim.asked["ttl"]
        for renewal in self._renewals[key]:
            # A renewal whose answer was lost may take place at any time, and then counts from there.
            end = max(end, renewal.started + renewal.asked["ttl"]) if renewal.outcome == "ok" else end
        ends = [release.started for release in self._releases[key]]
        return min([end, *ends]) - SLACK

    def over_from(self, claim: Operation) -> float:
        """Return from when on this claim was over for sure."""
        key = (claim.tenant, claim.answered["claim"])
        end: float = claim.ended + claim.asked["ttl"]
        for renewal in self._renewals[key]:
            end = max(end, renewal.ended + renewal.asked["ttl"]) if renewal.outcome == "ok" else FOREVER
        ends = [release.ended for release in self._releases[key] if release.outcome == "ok"]
        return min([end + SLACK, *ends])

    def is_late(self, delete: Operation) -> bool:
        """Whether the lease that a deletion names was over for sure when it was asked for."""
        claim = self.claims[delete.tenant, delete.asked["claim"]]
        if overlaps(claim.started, delete.ended, self.jumps):
            return False
        return delete.started > self.over_from(claim)

    def is_timely(self, delete: Operation) -> bool:
        """Whether the lease that a deletion names was live for sure until it was answered."""
        claim = self.claims[delete.tenant, delete.asked["claim"]]
        if overlaps(claim.started, delete.ended, self.jumps):
            return False
        return delete.ended <= self._live_until(claim)


def deleted(history: History, tenant: str, queue: str) -> set[str]:
    """Return the values that somebody deleted who may have had the lease."""
    leases = Leases(history)
    return {
        each.asked["value"]
        for each in chosen(history, "delete", tenant=tenant, queue=queue)
        if each.outcome != "fail" and not leases.is_late(each)
    }


def one_live_lease(history: History) -> Verdict:
    """No message is handed out, by a claim or a pop, while somebody has it for sure."""
    problems = []
    leases = Leases(history)
    held: dict[tuple[str, str, str], list[Operation]] = defaultdict(list)
    count = 0
    for claim in chosen(history, "claim", outcome="ok"):
        for id_, value in delivered(claim):
            count += 1
            key = (claim.tenant, claim.queue, id_)
            problems += [
                f"two leases of {value} of {claim.tenant}: {earlier.process} had it for"
                f" {leases.live_until(earlier, id_) - claim.ended:.3f} s more when {claim.process} got it"
                for earlier in held[key]
                if earlier.ended <= claim.started and claim.ended <= leases.live_until(earlier, id_)
                if not overlaps(earlier.started, claim.ended, leases.jumps)
            ]
            held[key].append(claim)
    for pop in chosen(history, "pop", outcome="ok"):
        for id_, value in delivered(pop):
            count += 1
            # Whichever was first: from a claim that came later, the message would have been gone.
            problems += [
                f"{value} of {pop.tenant} was popped while {other.process} had it"
                for other in held[pop.tenant, pop.queue, id_]
                if pop.ended <= leases.live_until(other, id_)
                if not overlaps(other.started, pop.ended, leases.jumps)
            ]
    return Verdict(name="one live lease", problems=tuple(problems), numbers={"hand-outs": count})


def fencing(history: History) -> Verdict:
    """A deletion by a lease that is over is refused as long as the message is there.

    It is there as long as nobody else has asked for its deletion, unless it has become
    a dead letter. Looked at is JOBS, of which nobody takes anything in another way.
    """
    problems = []
    leases = Leases(history)
    late = []
    timely: dict[tuple[str, str], float] = {}
    for each in chosen(history, "delete", queue=JOBS):
        if leases.is_late(each):
            late.append(each)
        elif each.outcome != "fail":
            timely.setdefault((each.tenant, each.asked["value"]), each.started)
    dead = {
        (page.tenant, value)
        for page in chosen(history, "list", outcome="ok")
        if page.process == "auditor"
        for _, value in delivered(page)
    }
    for each in late:
        key = (each.tenant, each.asked["value"])
        if each.outcome == "ok" and key not in dead and timely.get(key, FOREVER) > each.ended:
            problems.append(f"{each.process} deleted {key[1]} of {each.tenant} with a lease that was over")
    return Verdict(name="stale leases refused", problems=tuple(problems), numbers={"late": len(late)})


def posting_order(history: History) -> Verdict:
    """Posts that followed each other are in that order, and the messages of a post side by side."""
    problems = []
    count = 0
    firsts: dict[tuple[str, str, str], float] = {}
    for each in chosen(history, "post"):
        if key := each.asked["key"]:
            firsts.setdefault((each.tenant, each.queue, key), each.started)
    by_queue: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for each in chosen(history, "post", outcome="ok"):
        by_queue[each.tenant, each.queue].append(each)
        places = [int(id_[:16], 16) for id_ in each.answered["ids"]]
        if places != list(range(places[0], places[0] + len(places))):
            problems.append(f"{each.process} of {each.tenant} posted to places {places}")
    for (tenant, queue), posts in by_queue.items():
        # An attempt whose answer was lost may have stored what a later one is told of.
        begun = [(firsts.get((tenant, queue, post.asked["key"] or ""), post.started), post) for post in posts]
        ends = sorted(posts, key=lambda post: post.ended)
        highest, number = "", 0
        for start, post in sorted(begun, key=lambda pair: pair[0]):
            while number < len(ends) and ends[number].ended < start:
                highest = max(highest, ends[number].answered["ids"][-1])
                number += 1
            count += 1
            if post.answered["ids"][0] <= highest:
                problems.append(f"{post.asked['values'][0]} of {tenant}'s {queue} is before an earlier post")
    return Verdict(name="posts in order", problems=tuple(problems), numbers={"posts": count})
