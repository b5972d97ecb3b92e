"""A resolver that answers from a table, so that no test asks the network."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult


class TableResolver(AbstractResolver):
    """Gives the next answer of those listed for a name; the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self._answers:
            raise OSError(None, "no such name")
        lists = self._answers[host]
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return list(self._results(host, port, addresses))

    async def close(self) -> None:
        pass

    @staticmethod
    def _results(host: str, port: int, addresses: Sequence[str]) -> Iterator[ResolveResult]:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            yield ResolveResult(
                hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )
