"""One connection of a server that answers each request as soon as it is complete."""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Answering(asyncio.Protocol):
    """Finds the requests in what comes; what is answered is for `answer` to say."""

    @abstractmethod
    def answer(self, head: bytes, body: bytes) -> bytes:
        """Return the bytes of the answer to a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end)
            after = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < after:
                return
            self._transport.write(self.answer(self._buffer[:end], self._buffer[end + 4 : after]))
            self._buffer = self._buffer[after:]
