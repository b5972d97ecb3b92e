"""Redis alone, through redis-py: streams as one would use them for a queue, and a single Lua call."""

from __future__ import annotations

from typing import Any

import redis

from bench.bodies import body

_STREAM = "bare:stream"
_LIST = "bare:list"
_GROUP = "bare"
_LUA = """
local place
for _, body in ipairs(ARGV) do
    place = redis.call('INCR', KEYS[2])
    redis.call('RPUSH', KEYS[1], place .. ' ' .. body)
end
return place
"""


class Streams:
    """A queue in a stream with one group of consumers."""

    def __init__(self, uri: str, size: int) -> None:
        self._client: redis.Redis = redis.Redis.from_url(plain(uri))
        self._fields: Any = {"body": body(size)}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        self._client.delete(_STREAM)
        self._client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
        for start in range(0, stock, 1000):
            self.post(min(1000, stock - start))

    def post(self, count: int) -> None:
        """Append messages, many of them in a pipeline."""
        if count == 1:
            self._client.xadd(_STREAM, self._fields)
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                pipeline.xadd(_STREAM, self._fields)
            pipeline.execute()

    def take(self, count: int) -> int:
        """Read messages as a consumer, then acknowledge and delete them."""
        found: Any = self._client.xreadgroup(_GROUP, "consumer", {_STREAM: ">"}, count=count)
        if not found:
            return 0
        ((_, entries),) = found
        ids = [id_ for id_, _ in entries]
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.xack(_STREAM, _GROUP, *ids)
            pipeline.xdel(_STREAM, *ids)
            pipeline.execute()
        return len(ids)


class Lua:
    """A list that one Lua call appends to."""

    def __init__(self, uri: str, size: int) -> None:
        self._client: redis.Redis = redis.Redis.from_url(plain(uri))
        self._body = body(size)
        self._append = self._client.register_script(_LUA)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def prepare(self, stock: int) -> None:
        """Empty it, and fill in so many messages."""
        self._client.delete(_LIST)
        for start in range(0, stock, 1000):
            self.post(min(1000, stock - start))

    def post(self, count: int) -> None:
        """Append messages, all of them by one call."""
        self.append(*[self._body] * count)

    def take(self, count: int) -> int:
        """Take messages away from the front."""
        found: Any = self._client.lpop(_LIST, count)
        return len(found or ())

    def append(self, *documents: bytes) -> int:
        """Append documents and return the place of the last."""
        place: int = self._append(keys=[_LIST, f"{_LIST}:last"], args=documents)
        return place


def plain(uri: str) -> str:
    """Return the URI without what a driver of Hermod adds to it."""
    return uri.partition("?")[0]
