"""What a run came to, as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.fan_out import REQUESTS
from tests.faults.history import Operation
from tests.faults.verdict import Verdict, chosen

_SHOWN = 10  # problems of a verdict that are shown


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run and its verdicts."""

    store: str
    seed: int
    seconds: float
    absent: dict[str, str]  # kind of fault: why it could not be made
    history: Sequence[Operation]
    verdicts: Sequence[Verdict]

    @property
    def valid(self) -> bool:
        """Whether every promise was kept."""
        return not any(verdict.problems for verdict in self.verdicts)

    @property
    def problems(self) -> list[str]:
        """What was wrong."""
        return [f"{v.name}: {problem}" for v in self.verdicts for problem in v.problems]

    def document(self) -> dict[str, Any]:
        """Return everything that there is to say."""
        faults = Counter(each.answered["fault"] for each in chosen(self.history, "fault"))
        outcomes = Counter(each.outcome for each in chosen(self.history, *REQUESTS))
        return {
            "store": self.store,
            "seed": self.seed,
            "seconds": self.seconds,
            "valid": self.valid,
            "operations": sum(outcomes.values()),
            "outcomes": dict(sorted(outcomes.items())),
            "faults injected": faults.total(),
            "faults": dict(sorted(faults.items())),
            "absent": self.absent,
            "verdicts": {v.name: {"problems": list(v.problems), **v.numbers} for v in self.verdicts},
        }

    def text(self) -> str:
        """Return it as a person wants it."""
        facts = self.document()
        outcomes = ", ".join(f"{count} {name}" for name, count in facts["outcomes"].items())
        lines = [
            f"store {self.store}, seed {self.seed}, {self.seconds:.0f} s",
            f"{facts['operations']} operations: {outcomes}",
            f"{facts['faults injected']} faults:",
            *(f"  {count:4} {name}" for name, count in facts["faults"].items()),
            *(f"  none of the {kind}: {reason}" for kind, reason in self.absent.items()),
        ]
        for verdict in self.verdicts:
            numbers = ", ".join(f"{value} {name}" for name, value in verdict.numbers.items())
            lines.append(f"{'WRONG' if verdict.problems else 'right'}  {verdict.name}: {numbers}")
            lines += [f"       {problem}" for problem in verdict.problems[:_SHOWN]]
            if len(verdict.problems) > _SHOWN:
                lines.append(f"       and {len(verdict.problems) - _SHOWN} more")
        return "\n".join([*lines, "valid" if self.valid else "NOT VALID"])

    def write(self, folder: Path) -> None:
        """Leave it in the folder of the run."""
        (folder / "report.json").write_text(json.dumps(self.document(), indent=2) + "\n")
        (folder / "report.txt").write_text(self.text() + "\n")
