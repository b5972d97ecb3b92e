"""Names to addresses by the operating system, so that a slow name server holds up few but its own."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

from aiohttp.abc import AbstractResolver, ResolveResult

from notifiers.room import Shares

#: The project that a name is looked up for. aiohttp asks a resolver without saying why.
on_behalf_of: ContextVar[str] = ContextVar("on_behalf_of", default="")


class SystemResolver(AbstractResolver):
    """Asks `getaddrinfo` in threads of its own, once for all who want the same name at a time.

    The event loop's own threads are few, and a question cannot be taken back: names that are
    not answered would soon hold up all others. So no project has more of the threads than are
    left for others.
    """

    def __init__(self, threads: int) -> None:
        """Must happen within a running event loop; threads are started as they are needed."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._shares = Shares(threads)
        self._asked: dict[tuple[str, int, int], asyncio.Future[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all addresses of a host; raises OSError."""
        key, project = (host, port, family), on_behalf_of.get()
        if key not in self._asked:
            await self._shares.enter(project)
            if key in self._asked:  # somebody else was first
                self._shares.leave(project)
        answer = self._asked.get(key)
        if answer is None:
            answer = self._loop.run_in_executor(self._threads, _ask, host, port, family)
            answer.add_done_callback(lambda done: self._forget(key, project, done))
            self._asked[key] = answer
        # Who gives up does so alone.
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Give up what is not answered."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(
        self, key: tuple[str, int, int], project: str, done: asyncio.Future[list[ResolveResult]]
    ) -> None:
        del self._asked[key]
        self._shares.leave(project)
        if not done.cancelled():
            done.exception()  # so that nobody complains that nobody looked, where all have given up


def _ask(host: str, port: int, family: int) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in found
    ]
