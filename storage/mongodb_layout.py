"""The layout of what is in MongoDB; what it looks like stands on top of `storage/mongodb.py`.

How to change it is told in docs/explanation/upgrades.md. A step is a line here and a function, which changes
documents in parts, each in one statement or transaction, and can be repeated. An index is an expansion, too: a line in
`storage.mongodb_link.INDEXES` makes it, and takes none away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from pymongo import ReturnDocument
from pymongo.database import Database

from queues.models import LayoutStep, StepKind
from storage.layouts import by_themselves, oldest_reader


class Prepared(Protocol):
    """A database that is being made ready; see `storage.mongodb_link`."""

    @property
    def database(self) -> Database[dict[str, Any]]:
        """The database."""

    def unprepared(self) -> AbstractContextManager[None]:
        """Bound what is done inside, and turn pymongo's errors into those of the domain."""


STEPS: Final = (LayoutStep(number=1, kind=StepKind.EXPAND, what="the collections of release 0.1.0"),)

#: What makes a step, by its number; nothing where new data alone look different.
WORK: Final[Mapping[int, Callable[[Prepared], None]]] = {}

_ID: Final = {"_id": "layout"}


class MongoLayout:
    """See `storage.layouts.Layered`. The layout is noted in the one document of the collection `layout`: v, oldest."""

    name = "mongodb"

    def __init__(
        self,
        link: Prepared,
        steps: Sequence[LayoutStep] = STEPS,
        work: Mapping[int, Callable[[Prepared], None]] = WORK,
    ) -> None:
        self._link = link
        self._work = work
        self.steps = steps

    def found(self) -> tuple[int, int]:
        """Return what is noted, having noted it in a store that is new."""
        new = by_themselves(self.steps)
        first = {"v": new, "oldest": oldest_reader(self.steps, new)}
        with self._link.unprepared():
            found: Any = self._link.database.layout.find_one_and_update(
                _ID, {"$setOnInsert": first}, upsert=True, return_document=ReturnDocument.AFTER
            )
        return int(found["v"]), int(found["oldest"])

    def perform(self, step: LayoutStep) -> None:
        """Make a step and note it."""
        if step.number in self._work:
            self._work[step.number](self._link)
        raised = {"v": step.number, "oldest": oldest_reader(self.steps, step.number)}
        with self._link.unprepared():
            self._link.database.layout.update_one({**_ID, "v": {"$lt": step.number}}, {"$set": raised})
