"""A subscriber that takes whatever comes: `python -m bench.receiver PORT [HOST]`.

It writes `ready`, answers 204 at once, and writes a line of JSON each second: how old
the messages were that came, by the member `t` of the message (Unix seconds), in ms.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"t": ?([0-9.]+)')
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"

ages: list[float] = []


class Receiver(asyncio.Protocol):
    """One connection."""

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
            now = time.time()
            ages.extend((now - float(sent)) * 1000 for sent in _SENT.findall(self._buffer, end, after))
            self._buffer = self._buffer[after:]
            self._transport.write(_ANSWER)


async def main(port: int, host: str = "127.0.0.1") -> None:
    """Serve until the process is ended."""
    await asyncio.get_running_loop().create_server(Receiver, host, port)
    print("ready", flush=True)
    while True:
        await asyncio.sleep(1)
        print(json.dumps(sorted(ages)), flush=True)
        ages.clear()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
