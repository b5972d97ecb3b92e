"""Histories made by hand, for the tests of the checkers. Each thing takes a second, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.faults.history import FOREVER, Operation, Outcome
from tests.faults.load import DEAD, JOBS, NEWS, SCRATCH, TASKS

GENERATION = "00000000000000ff"


def id_of(place: int, generation: str = GENERATION) -> str:
    """Return the id of a message by its place."""
    return f"{place:016x}{generation}"


class Story:
    """A history that is told step by step; `alpha/...` are values of the tenant alpha."""

    def __init__(self, tenant: str = "alpha") -> None:
        self.tenant = tenant
        self.history: list[Operation] = []
        self.now = 0.0

    def then(
        self,
        name: str,
        queue: str = "",
        *,
        process: str = "somebody",
        at: float | None = None,
        takes: float = 1.0,
        outcome: Outcome = "ok",
        asked: dict[str, Any] | None = None,
        **answered: Any,
    ) -> Story:
        """Add an operation, at a time (seconds) or behind the last one."""
        started = self.now if at is None else at
        ended = started + takes
        self.now = max(self.now, started if takes == FOREVER else ended) + 0.1
        self.history.append(
            Operation(
                process=process,
                name=name,
                tenant=self.tenant,
                queue=queue,
                started=started,
                ended=ended,
                outcome=outcome,
                asked=asked or {},
                answered=answered,
            )
        )
        self.history.sort(key=lambda operation: operation.started)
        return self

    def post(
        self,
        *values: str,
        first: int = 1,
        queue: str = JOBS,
        key: str | None = None,
        delay: int = 0,
        **more: Any,
    ) -> Story:
        """Add a post, whose messages get places from `first` on."""
        asked = {"values": list(values), "key": key, "delay": delay}
        ids: Any = [id_of(first + number) for number in range(len(values))]
        return self.then("post", queue, asked=asked, **{"ids": ids, **more})

    def lost_post(self, *values: str, queue: str = JOBS, key: str | None = None) -> Story:
        """Add a post whose answer was lost."""
        asked = {"values": list(values), "key": key, "delay": 0}
        return self.then("post", queue, asked=asked, outcome="unknown")

    def claim(
        self, claim: str, *messages: tuple[int, str], ttl: int = 3, queue: str = JOBS, **more: Any
    ) -> Story:
        """Add a claim that got messages, given by place and value."""
        got: dict[str, Any] = {
            "ids": [id_of(place) for place, _ in messages],
            "values": [value for _, value in messages],
        }
        return self.then("claim", queue, asked={"ttl": ttl, "limit": 10}, claim=claim, **{**got, **more})

    def pop(self, *messages: tuple[int, str], **more: Any) -> Story:
        """Add a pop from TASKS that got messages."""
        got: dict[str, Any] = {
            "ids": [id_of(place) for place, _ in messages],
            "values": [value for _, value in messages],
        }
        return self.then("pop", TASKS, asked={"limit": 10}, **{**got, **more})

    def lost_pop(self, limit: int, *, queue: str = TASKS, **more: Any) -> Story:
        """Add a pop whose answer was lost."""
        return self.then("pop", queue, asked={"limit": limit}, outcome="unknown", **more)

    def purge(self, **more: Any) -> Story:
        """Add a purge of SCRATCH."""
        return self.then("purge", SCRATCH, **more)

    def delete(self, claim: str, place: int, value: str, **more: Any) -> Story:
        """Add the deletion of a message by its claim."""
        asked = {"claim": claim, "id": id_of(place), "value": value}
        return self.then("delete", JOBS, asked=asked, **{"status": 204, **more})

    def release(self, claim: str) -> Story:
        """Add the release of a claim."""
        return self.then("release", JOBS, asked={"claim": claim}, status=204)

    def renew(self, claim: str, ttl: int, **more: Any) -> Story:
        """Add the renewal of a claim."""
        return self.then("renew", JOBS, asked={"claim": claim, "ttl": ttl}, **{"status": 204, **more})

    def listing(
        self, queue: str, *messages: tuple[int, str], marker: int = 0, process: str = "auditor"
    ) -> Story:
        """Add a page, behind the marker of a place."""
        asked = {"marker": id_of(marker) if marker else "", "limit": 100}
        got: dict[str, Any] = {
            "ids": [id_of(place) for place, _ in messages],
            "values": [value for _, value in messages],
        }
        return self.then("list", queue, process=process, asked=asked, **got)

    def dead(self, *values: str) -> Story:
        """Add the look at the dead letters at the end."""
        return self.listing(DEAD, *enumerate(values, 1))

    def stats(self, queue: str, total: int, claimed: int = 0) -> Story:
        """Add the statistics of a queue."""
        return self.then("stats", queue, total=total, claimed=claimed, free=total - claimed)

    def delivery(self, value: str, id_: str, status: int = 200) -> Story:
        """Add a delivery to a webhook."""
        return self.then("delivery", takes=0, value=value, id=id_, status=status)

    def resume(self, process: str, **more: Any) -> Story:
        """Add a subscriber's return."""
        return self.then("resume", NEWS, process=process, **{"status": 200, "gap": None, **more})

    def frames(self, process: str, frames: Sequence[tuple[int, str]]) -> Story:
        """Add what a subscriber was pushed."""
        for number, value in frames:
            self.then("frame", NEWS, process=process, takes=0, sequence=number, value=value)
        return self

    def fault(self, name: str, *, lasts: float, decides: bool = True) -> Story:
        """Add a fault that was healed after some seconds."""
        begun = self.now
        self.then("fault", takes=0, at=begun, fault=name, decides=decides)
        return self.then("healed", takes=0, at=begun + lasts, fault=name, decides=decides)
