"""Routers: which store a queue lives in."""

from __future__ import annotations

from queues.models import Address
from queues.ports import MessageStore


class OneStore:
    """The router of a service without pools: everything lives in its default store."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def store(self, address: Address) -> MessageStore:
        """Return the only store."""
        return self._store

    def stores(self) -> dict[str, MessageStore]:
        """Return the only store, under the name of the default."""
        return {"": self._store}
