"""Subscribers over websockets: `python -m bench.listener URL PROJECT TOKEN QUEUE COUNT`.

It writes `ready` when all are subscribed, and then a line of JSON each second: how old
the messages were that came, by their member `t` (Unix seconds), in ms.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType

from bench.bodies import PRODUCER

_SENT = re.compile(r'"t": ?([0-9.]+)')
_TTL = 3_600  # seconds, of a subscription

ages: list[float] = []


async def main(url: str, project: str, token: str, queue: str, count: int) -> None:
    """Subscribe, and listen until the process is ended."""
    headers = {"Client-ID": PRODUCER, "X-Project-ID": project, "X-Auth-Token": token}
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        listeners = []
        for _ in range(count):
            client = await session.ws_connect(url, max_msg_size=0)
            await _ask(client, "authenticate", headers)
            await _ask(client, "subscription_create", headers, queue_name=queue, ttl=_TTL)
            listeners.append(asyncio.create_task(_listen(client)))
        print("ready", flush=True)
        while True:
            await asyncio.sleep(1)
            print(json.dumps(sorted(ages)), flush=True)
            ages.clear()


async def _ask(client: ClientWebSocketResponse, action: str, headers: dict[str, str], **body: object) -> None:
    await client.send_str(json.dumps({"action": action, "headers": headers, "body": body}))
    reply = json.loads(await client.receive_str())
    if reply["headers"]["status"] >= 300:
        raise RuntimeError(f"{action} was answered by {reply}")


async def _listen(client: ClientWebSocketResponse) -> None:
    async for frame in client:
        if frame.type is WSMsgType.TEXT:
            now = time.time()
            ages.extend((now - float(sent)) * 1000 for sent in _SENT.findall(frame.data))


if __name__ == "__main__":
    url, project, token, queue, count = sys.argv[1:]
    asyncio.run(main(url, project, token, queue, int(count)))
