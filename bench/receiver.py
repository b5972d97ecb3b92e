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

from bench.answering import Answering

_SENT = re.compile(rb'"t": ?([0-9.]+)')
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"

ages: list[float] = []


class Receiver(Answering):
    """One connection."""

    def answer(self, _head: bytes, body: bytes) -> bytes:
        """Note how old the messages are, and take them."""
        now = time.time()
        ages.extend((now - float(sent)) * 1000 for sent in _SENT.findall(body))
        return _ANSWER


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
