"""What clients did and what they were answered, on disk as JSON lines, so that a run can be checked again.

An operation is two lines: its invocation, and its end. Outcomes are those of the client:
`ok`, `fail` (it was told that nothing was done) and `unknown` (it may have been done, or be
done yet). What just happened, such as a pushed frame or a fault, is one line.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "unknown"]

FOREVER = float("inf")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that a process did, or that happened to it."""

    process: str  # who
    name: str  # what: post, claim, delete, frame, fault ...
    tenant: str = ""
    queue: str = ""
    started: float = 0.0  # seconds since the run began, by the monotonic clock
    ended: float = FOREVER  # FOREVER if nothing was ever heard of it
    outcome: Outcome = "unknown"
    asked: dict[str, Any] = field(default_factory=dict)
    answered: dict[str, Any] = field(default_factory=dict)


@dataclass
class Pending:
    """An operation that is under way."""

    outcome: Outcome = "unknown"
    answered: dict[str, Any] = field(default_factory=dict)

    def end(self, outcome: Outcome, **answered: Any) -> None:
        """Say how it ended."""
        self.outcome, self.answered = outcome, answered


class History:
    """A log to which many threads append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._origin = time.monotonic()
        self._lock = threading.Lock()
        self._last = 0
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Take nothing more; what comes yet, from threads that end late, is dropped."""
        with self._lock:
            self._file.close()

    def now(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._origin

    @contextmanager
    def operation(
        self, process: str, name: str, tenant: str = "", queue: str = "", **asked: Any
    ) -> Iterator[Pending]:
        """Log the invocation of an operation, and its end; it is unknown unless the block says more."""
        with self._lock:
            self._last += 1
            number = self._last
            head = {"n": number, "event": "invoke", "process": process, "name": name}
            self._write({**head, "tenant": tenant, "queue": queue, "time": self.now(), "asked": asked})
        pending = Pending()
        try:
            yield pending
        finally:
            with self._lock:
                end = {"n": number, "event": pending.outcome, "time": self.now()}
                self._write({**end, "answered": pending.answered})

    def note(self, process: str, name: str, tenant: str = "", queue: str = "", **facts: Any) -> None:
        """Log something that happened."""
        with self._lock:
            head = {"event": "fact", "process": process, "name": name, "tenant": tenant, "queue": queue}
            self._write({**head, "time": self.now(), "answered": facts})

    def _write(self, line: dict[str, Any]) -> None:
        if not self._file.closed:
            line["time"] = round(line["time"], 6)
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def read(path: Path) -> list[Operation]:
    """Return the operations of a log by the time of their invocation; the last line may be torn."""
    with path.open(encoding="utf-8") as lines:
        return paired(_whole(lines))


def _whole(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.endswith("\n"):
            yield json.loads(line)


def paired(lines: Iterable[dict[str, Any]]) -> list[Operation]:
    """Join invocations with their ends."""
    begun: dict[int, dict[str, Any]] = {}
    found = []
    for line in lines:
        if line["event"] == "invoke":
            begun[line["n"]] = line
        elif line["event"] == "fact":
            found.append(_operation(line, {**line, "event": "ok"}))
        else:
            found.append(_operation(begun.pop(line["n"]), line))
    found += [_operation(line, {"event": "unknown", "time": FOREVER}) for line in begun.values()]
    return sorted(found, key=lambda operation: operation.started)


def _operation(head: dict[str, Any], end: dict[str, Any]) -> Operation:
    return Operation(
        process=head["process"],
        name=head["name"],
        tenant=head["tenant"],
        queue=head["queue"],
        started=head["time"],
        ended=end["time"],
        outcome=end["event"],
        asked=head.get("asked", {}),
        answered=end.get("answered", {}),
    )
