"""Stores as files: how what a release stored is kept, and brought back into a store of its own."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import redis
from bson import json_util

from tests import servers

PREFIX = "release"  # of the keys in Redis, which have it inside too

#: The files that hold a store, by its kind.
FILES = {"sqlite": "store.sqlite", "redis": "redis.json", "mongodb": "mongodb.json"}


def uri_of(kind: str, folder: Path) -> str:
    """Return the URI of an empty store of a kind; those of one folder are the same."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'store.db'}"
    if kind == "redis":
        uri = servers.redis_uri(folder).rpartition("prefix=")[0] + f"prefix={PREFIX}"
        client = _redis(uri)
        for key in client.scan_iter(f"{PREFIX}:*"):
            client.delete(key)
        return uri
    return servers.mongodb_uri(folder)


def dump(kind: str, uri: str, target: Path) -> None:
    """Write down what a store holds, which is closed."""
    if kind == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
        assert not path.with_name(f"{path.name}-wal").exists()
        shutil.copy(path, target)
    elif kind == "redis":
        client = _redis(uri)
        keys = {
            key.decode("latin-1"): base64.b64encode(client.dump(key)).decode()
            for key in sorted(client.scan_iter(f"{PREFIX}:*"))
        }
        target.write_text(json.dumps(keys, indent=1))
    else:
        with _mongo(uri) as database:
            found = {name: list(database[name].find()) for name in sorted(database.list_collection_names())}
        target.write_text(json_util.dumps(found, indent=1, json_options=json_util.CANONICAL_JSON_OPTIONS))


def load(kind: str, source: Path, uri: str) -> None:
    """Put what was written down into an empty store."""
    if kind == "sqlite":
        shutil.copy(source, uri.removeprefix("sqlite:///"))
    elif kind == "redis":
        client = _redis(uri)
        for key, value in json.loads(source.read_text()).items():
            client.restore(key.encode("latin-1"), 0, base64.b64decode(value))
    else:
        with _mongo(uri) as database:
            for name, documents in json_util.loads(source.read_text()).items():
                if documents:
                    database[name].insert_many(documents)


def _redis(uri: str) -> Any:
    return redis.Redis.from_url(uri.partition("?")[0])


class _mongo:  # noqa: N801 - used as a function
    def __init__(self, uri: str) -> None:
        base = uri.partition("?")
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self._name = urlsplit(base[0]).path.strip("/")

    def __enter__(self) -> Any:
        return self._client[self._name]

    def __exit__(self, *_: object) -> None:
        self._client.close()
