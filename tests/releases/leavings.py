"""What nobody touches any more: a queue of which everything is long over, and what a store still has of it.

As a program it leaves such a queue with whatever release it can import: `python leavings.py URI QUEUE`.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pymongo
import redis
from pymongo.database import Database

from queues.models import Address, Caller
from queues.service.messages import Draft
from storage.redis_keys import base_key
from transport.settings import Settings
from transport.wiring import open_service

PROJECT = "tenant"
LEFT = 4  # three messages, of which one is claimed, and an idempotency key
_LONG = 10 * 86_400_000  # ms since then

_IN_SQLITE = """
SELECT (SELECT count(*) FROM queue JOIN message ON message.pile = queue.pile WHERE queue.name = :queue)
     + (SELECT count(*) FROM queue JOIN idempotency ON idempotency.queue = queue.n WHERE queue.name = :queue)
"""


def leave(uri: str, queue: str) -> None:
    """Post messages with an idempotency key, and claim one, so long ago that all of it is over."""
    then = int(time.time() * 1000) - _LONG
    caller, address = Caller(project=PROJECT, client_id=""), Address(project=PROJECT, queue=queue)
    with closing(open_service(Settings(store=uri), clock=lambda: then)) as service:
        service.messages.post(caller, address, [Draft(body=b"1", ttl=60)] * 3, key="key")
        service.claims.create(address, limit=1, ttl=60, grace=60)


@contextmanager
def looking(uri: str, queue: str) -> Iterator[Callable[[], int]]:
    """Yield what tells how many messages and idempotency keys of a queue a store has, over or not, and reclaims nothing."""
    scheme = urlsplit(uri).scheme
    if scheme == "sqlite":
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as file:
            yield lambda: int(file.execute(_IN_SQLITE, {"queue": queue}).fetchone()[0])
    elif scheme == "redis":
        base, _, prefix = uri.partition("?prefix=")
        key = base_key(prefix, Address(project=PROJECT, queue=queue))
        with closing(redis.Redis.from_url(base)) as client:
            yield lambda: sum(int(client.hlen(f"{key}:{part}")) for part in "mi")
    else:
        with pymongo.MongoClient[dict[str, object]](uri) as mongo:
            yield lambda: _in_mongodb(mongo.get_default_database(), queue)


def _in_mongodb(database: Database[dict[str, object]], queue: str) -> int:
    found = database["queue"].find_one({"_id": {"p": PROJECT, "q": queue}})
    assert found is not None
    messages = database["message"].count_documents({"pile": found["pile"]})
    return messages + database["once"].count_documents({"_id.h": found["gen"]})


if __name__ == "__main__":
    leave(*sys.argv[1:])
