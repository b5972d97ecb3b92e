"""The connection to Redis: one server, Sentinel, or Cluster, by the URI; and its scripts.

    redis://[[user]:password@]host:port[/db]              one server
    redis+sentinel://host:port[,host:port...]/service[/db]  the master that Sentinel names
    redis+cluster://host:port[,host:port...]               a cluster
    rediss://, rediss+sentinel://, rediss+cluster://        the same over TLS

A query may follow: `prefix` is what all keys begin with (default `hermod`), so that
several services can share a server; the rest, such as `ssl_ca_certs=/path`, is handed
to redis-py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgpack
from redis import Redis, RedisCluster, Sentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from queues.errors import StoreUnavailable, StoreUnsupported
from queues.models import Durability
from storage.server_clock import ServerClock

_SCRIPTS: Final = files("storage").joinpath("lua")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


@contextmanager
def vendor_errors() -> Iterator[None]:
    """Turn redis-py's errors into those of the domain."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis: {error}.") from error


class RedisLink:
    """Runs scripts and commands, each bounded by `timeout` seconds.

    Nothing is sent twice: a command whose answer is lost may have been carried out.
    """

    def __init__(self, uri: str, *, timeout: float) -> None:
        try:
            with vendor_errors():
                self.client, self.prefix = _client(uri, timeout)
        except (TypeError, ValueError) as error:
            raise StoreUnsupported(f"The URI of the Redis store is wrong: {error}.") from error
        self._sources: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self.clock = ServerClock(self._ask_time)

    @property
    def clustered(self) -> bool:
        """Whether keys of different shards may be on different servers."""
        return isinstance(self.client, RedisCluster)

    def close(self) -> None:
        """Close every connection."""
        self.client.close()

    def run(self, script: str, key: str, *argument: object) -> list[Any]:
        """Run a script of `storage/lua` on a key and return its answer."""
        blob = msgpack.packb(argument, use_bin_type=False)
        with vendor_errors():
            digest = self._digests.get(script)
            try:
                if digest is None:
                    raise NoScriptError
                packed = self.client.evalsha(digest, 1, key, blob)
            except NoScriptError:
                # The server forgets scripts when it restarts; sent whole, it learns them again.
                packed = self.client.eval(self._source(script), 1, key, blob)
        answer: list[Any] = msgpack.unpackb(packed, raw=True)
        return answer

    def durability(self) -> Durability:
        """Ask the server what it writes to disk, and what it may throw away."""
        with vendor_errors():
            facts = self._facts()
        warnings = []
        if facts.get("appendonly") != "yes":
            warnings.append(
                "appendonly is off: a crash of Redis loses what was posted since its last snapshot."
            )
        elif facts.get("appendfsync") != "always":
            warnings.append(
                f"appendfsync is {facts.get('appendfsync')}: a power failure loses about the last second."
            )
        if facts.get("maxmemory") != "0" and facts.get("maxmemory-policy") != "noeviction":
            warnings.append(
                f"maxmemory-policy is {facts.get('maxmemory-policy')}: Redis throws messages away when it is full."
            )
        return Durability(driver="redis", facts=facts, warnings=warnings)

    def _ask_time(self) -> float:
        with vendor_errors():
            seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6

    def _facts(self) -> dict[str, str]:
        node: dict[str, Any] = {"target_nodes": "random"} if isinstance(self.client, RedisCluster) else {}
        info: dict[str, Any] = self.client.info("server", **node)
        facts = {"Redis": str(info["redis_version"]), "mode": str(info["redis_mode"])}
        for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
            facts |= {str(key): str(value) for key, value in self.client.config_get(name, **node).items()}
        return facts

    def _source(self, script: str) -> str:
        if script not in self._sources:
            common = _SCRIPTS.joinpath("common.lua").read_text(encoding="utf-8")
            own = _SCRIPTS.joinpath(f"{script}.lua").read_text(encoding="utf-8")
            self._sources[script] = source = f"{common}\n{own}"
            self._digests[script] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        return self._sources[script]


def _client(uri: str, timeout: float) -> tuple[Redis | RedisCluster, str]:
    parts = urlsplit(uri)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
        raise StoreUnsupported("A Redis store is named by redis://, redis+sentinel:// or redis+cluster://.")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        **dict(parse_qsl(parts.query)),
    }
    prefix: str = options.pop("prefix", "hermod")
    if not _PREFIX(prefix):
        raise StoreUnsupported("The prefix of a Redis store has letters, digits, hyphens and underscores.")
    if scheme == "rediss":
        options["ssl"] = True
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    hosts = _hosts(parts.netloc.rpartition("@")[2])
    path = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **options), prefix
    if kind == "sentinel":
        if not path:
            raise StoreUnsupported("The URI of a Sentinel store ends with the name of the service.")
        database = int(path[1]) if len(path) > 1 else 0
        sentinel = Sentinel(hosts, socket_timeout=timeout)  # type: ignore[no-untyped-call]
        master: Redis = sentinel.master_for(path[0], db=database, **options)  # type: ignore[no-untyped-call]
        return master, prefix
    ((host, port),) = hosts
    return Redis(host=host, port=port, db=int(path[0]) if path else 0, **options), prefix


def _hosts(text: str) -> list[tuple[str, int]]:
    hosts = []
    for part in text.split(","):
        parts = urlsplit(f"//{part}")
        hosts.append((parts.hostname or "127.0.0.1", parts.port or 6379))
    return hosts
