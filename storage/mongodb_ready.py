"""The messages of a queue of MongoDB's that can be claimed, as those see them who take some from the front.

They are read once for all steps of a transaction that take some. And they are not looked for from the beginning of the
queue: what was taken leaves marks in the index, which MongoDB keeps for minutes, and each of which would be stepped over.
So the header says in front of which place nothing is ready (`low`). It is written when it has grown by a stride,
and anew from the beginning when messages came back to their places. A release that does not mind it
leaves `kept` behind `rev`, and then it does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.database import Database

from storage.mongodb_header import QueueHeader
from storage.mongodb_link import READY, Document

_STRIDE: Final = 500  # places, over which a look goes fast


class ReadyMessages:
    """The first messages that are ready, `ahead` of which are read at once, while nothing but taking them happens."""

    def __init__(
        self, database: Database[Document], session: ClientSession, queue: QueueHeader, ahead: int
    ) -> None:
        self._messages = database.message
        self._session = session
        self._ahead = ahead
        self._queue = queue
        self._found: list[Document] = []  # in front of `_end`, and not taken
        self._end = queue.low
        self._all = False  # whether there are no others

    def first(self, limit: int) -> Sequence[Document]:
        """Return the first ones, so many at most."""
        if len(self._found) < limit and not self._all:
            self._read(max(limit, self._ahead) - len(self._found))
        return self._found[:limit]

    def took(self, taken: Sequence[Document]) -> None:
        """Note that some are ready no more."""
        gone = {each["seq"] for each in taken}
        self._found = [each for each in self._found if each["seq"] not in gone]
        low = self._found[0]["seq"] if self._found else self._end
        if low >= self._queue.low + _STRIDE:
            self._queue.low = low

    def _read(self, count: int) -> None:
        wanted = {"pile": self._queue.pile, "st": READY, "seq": {"$gte": self._end}}
        found = self._messages.find(wanted, session=self._session)
        more = list(found.sort("seq", ASCENDING).limit(count))
        self._all = len(more) < count
        self._found += more
        if more:
            self._end = more[-1]["seq"] + 1
