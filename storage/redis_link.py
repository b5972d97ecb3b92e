"""The connection to Redis: one server, Sentinel, or Cluster, by the URI; and its scripts.

    redis://[[user]:password@]host:port[/db]              one server
    redis+sentinel://host:port[,host:port...]/service[/db]  the master that Sentinel names
    redis+cluster://host:port[,host:port...]               a cluster
    rediss://, rediss+sentinel://, rediss+cluster://        the same over TLS

A query may follow: `prefix` is what all keys begin with (default `hermod`), so that
several services can share a server; `wait_replicas` is how many replicas must have a
change before it is answered (default 1 with Sentinel and Cluster, else 0); the rest,
such as `ssl_ca_certs=/path`, is handed to redis-py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgpack
from redis import Redis, Sentinel
from redis.backoff import NoBackoff
from redis.connection import URL_QUERY_ARGUMENT_PARSERS, Connection
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from queues.crashes import reach
from queues.errors import StoreUnavailable, StoreUnsupported
from queues.models import Durability
from queues.versions import MESSAGE_VERSION
from storage.layouts import make_ready
from storage.redis_cluster import Cluster, Node
from storage.redis_layout import RedisLayout
from storage.redis_server import Command, Server
from storage.server_clock import ServerClock
from storage.shared_call import SharedCall

_SCRIPTS: Final = files("storage").joinpath("lua")

#: Scripts after which no replica is waited for: they tell what is there, or what is over by the clock.
_READERS: Final = frozenset(
    {"expire", "get", "layout", "list", "outlook", "read_claim", "record_scan", "stats", "totals"},
)

#: Scripts whose answer promises nothing if they found nothing to take.
_TAKERS: Final = frozenset({"claim", "pop"})

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


@contextmanager
def vendor_errors() -> Iterator[None]:
    """Turn redis-py's errors into those of the domain."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis: {error}.") from error


class Servers(Protocol):
    """Who has the keys: one server or several."""

    def send(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands on one key at once; an answer may be a ResponseError."""

    def primaries(self) -> Sequence[Redis]:
        """Return a client of each server that is written to."""

    def hub(self) -> Redis:
        """Return a client of a server that hears whatever is published."""

    def hears(self, connection: Connection) -> bool:
        """Tell whether the server at the other end still hears whatever is published."""

    def close(self) -> None:
        """Close every connection."""


class RedisLink:
    """Runs scripts and commands, each within about twice `timeout` seconds.

    Nothing is sent twice: a command whose answer is lost may have been carried out.
    Nothing is connected before it is needed. Raises StoreUnsupported for a URI that is
    wrong; its methods raise StoreUnavailable.
    """

    def __init__(self, uri: str, *, timeout: float) -> None:
        try:
            target = _parse(uri)
            self._servers = target.servers(timeout)
        except (TypeError, ValueError) as error:
            raise StoreUnsupported(f"The URI of the Redis store is wrong: {error}.") from error
        self.prefix = target.prefix
        self.database = target.database
        self.wait_replicas = target.wait
        self._fails_over = bool(target.kind)
        self._patience = max(1, int(timeout * 500))  # ms for the replicas: half of the time that there is
        self._sources: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self.clock = ServerClock(self._ask_time)
        self._is_ready = False  # whether this release may use the data; looked at when that is needed
        self._make_ready = SharedCall(self._look_at_layout)

    @property
    def clustered(self) -> bool:
        """Whether keys of different shards may be on different servers."""
        return isinstance(self._servers, Cluster)

    def close(self) -> None:
        """Close every connection."""
        self._servers.close()

    def run(self, script: str, key: str, *argument: object) -> list[Any]:
        """Run a script of `storage/lua` on a key and return its answer."""
        if not self._is_ready:
            self._make_ready()
        return self.script(script, key, *argument)

    def script(self, script: str, key: str, *argument: object) -> list[Any]:
        """Do so whatever the layout of the data is."""
        reach("redis.before-script")
        blob = msgpack.packb(argument, use_bin_type=False)
        with vendor_errors():
            digest = self._digests.get(script)
            try:
                if digest is None:
                    raise NoScriptError
                packed = self._call(script, key, ("EVALSHA", digest, 1, key, blob))
            except NoScriptError:
                # The server forgets scripts when it restarts; sent whole, it learns them again.
                packed = self._call(script, key, ("EVAL", self._source(script), 1, key, blob))
        reach("redis.after-script")
        answer: list[Any] = msgpack.unpackb(packed, raw=True)
        return answer

    def read(self, key: str, *command: object) -> Any:  # noqa: ANN401 - what the command answers
        """Send a command that changes nothing to the server that has a key, and return its answer."""
        if not self._is_ready:
            self._make_ready()
        with vendor_errors():
            (answer,) = self._servers.send(key, [command])
            return _checked(answer)

    def _look_at_layout(self) -> None:
        make_ready(RedisLayout(self))
        self._is_ready = True

    def listen(self) -> Connection:
        """Connect to a server that hears whatever is published. Raises RedisError and OSError."""
        pool = self._servers.hub().connection_pool
        # Not one that the pool has already, which may be to a master that is no longer one.
        connection: Connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def hears(self, connection: Connection) -> bool:
        """Tell whether a connection is still to such a server. Raises RedisError and OSError."""
        return self._servers.hears(connection)

    def durability(self) -> Durability:
        """Ask the servers what they write to disk, what they may throw away, and who has a copy."""
        with vendor_errors():
            found = [_facts_of(server) for server in self._servers.primaries()]
        facts = {name: ", ".join(sorted({each[name] for each in found})) for name in found[0]}
        replicas = min(int(each["replicas"]) for each in found)
        facts |= {"replicas": str(replicas), "wait_replicas": str(self.wait_replicas)}
        warnings = []
        if facts["appendonly"] != "yes":
            warnings.append(
                "appendonly is off: a crash of Redis loses what was posted since its last snapshot."
            )
        elif facts["appendfsync"] != "always":
            warnings.append(
                f"appendfsync is {facts['appendfsync']}: a power failure loses about the last second."
            )
        if facts["maxmemory"] != "0" and facts["maxmemory-policy"] != "noeviction":
            warnings.append(
                f"maxmemory-policy is {facts['maxmemory-policy']}: Redis throws messages away when it is full."
            )
        if self.wait_replicas > replicas:
            warnings.append(
                f"wait_replicas is {self.wait_replicas} and a server has {replicas} replicas: what is written is refused."
            )
        if self._fails_over and not self.wait_replicas:
            warnings.append("wait_replicas is 0: a fail-over loses what the replica has not received yet.")
        return Durability(driver="redis", facts=facts, warnings=warnings)

    def _call(self, script: str, key: str, call: Command) -> Any:  # noqa: ANN401 - what the script answers
        if not self.wait_replicas or script in _READERS:
            (answer,) = self._servers.send(key, [call])
            return _checked(answer)
        # WAIT waits for what its own connection wrote. A script that finds its work done already, by a request
        # that was given up, must not be answered before that work is on the replicas: hence a write in any case.
        fence = [] if script in _TAKERS else [("SET", f"{key}:fence", "", "PX", 1)]
        wait = ("WAIT", self.wait_replicas, self._patience)
        answer, *others = self._servers.send(key, [call, *fence, wait])
        _checked(answer)
        confirmed = [_checked(other) for other in others][-1]
        if confirmed < self.wait_replicas:
            raise StoreUnavailable(
                f"Redis: {confirmed} of {self.wait_replicas} replicas have the change in time."
            )
        return answer

    def _ask_time(self) -> float:
        # A cluster has many clocks; it is asked for that of the node with this key, by everybody.
        seconds, microseconds = self.read(f"{self.prefix}:clock", "TIME")
        return float(seconds) + float(microseconds) / 1e6

    def _source(self, script: str) -> str:
        if script not in self._sources:
            constants = f"local DATABASE, MESSAGE_VERSION = {self.database}, {MESSAGE_VERSION}"
            common = _SCRIPTS.joinpath("common.lua").read_text(encoding="utf-8")
            own = _SCRIPTS.joinpath(f"{script}.lua").read_text(encoding="utf-8")
            self._sources[script] = source = f"{constants}\n{common}\n{own}"
            self._digests[script] = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        return self._sources[script]


class _OneServer:
    """A server, or the one that Sentinel names."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._server = Server(client)

    def send(self, _key: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands at once."""
        return self._server.send(commands)

    def primaries(self) -> Sequence[Redis]:
        """Return the only client."""
        return [self._client]

    def hub(self) -> Redis:
        """Return the only client."""
        return self._client

    def hears(self, connection: Connection) -> bool:
        """Tell whether Sentinel still names the server at the other end, where there is a Sentinel."""
        pool = self._client.connection_pool
        if not isinstance(pool, SentinelConnectionPool):
            return True
        try:
            master = pool.get_master_address()  # type: ignore[no-untyped-call]
        except MasterNotFoundError:  # it does not name another one either
            return True
        return bool(master == (connection.host, connection.port))

    def close(self) -> None:
        """Close every connection."""
        self._server.close()


def _checked(answer: Any) -> Any:  # noqa: ANN401 - what Redis answers
    if isinstance(answer, RedisError):
        raise answer
    return answer


def _facts_of(server: Redis) -> dict[str, str]:
    info: dict[str, Any] = server.info("server")
    facts = {"Redis": str(info["redis_version"]), "mode": str(info["redis_mode"])}
    for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        facts |= {str(key): str(value) for key, value in server.config_get(name).items()}
    return facts | {"replicas": str(server.info("replication")["connected_slaves"])}


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What a URI says."""

    kind: str  # "sentinel", "cluster", or "" for one server
    hosts: Sequence[Node]
    path: Sequence[str]
    prefix: str  # of all keys
    wait: int  # replicas to wait for
    options: dict[str, Any]  # for redis-py

    @property
    def database(self) -> int:
        """The number of the database."""
        path = self.path[1:] if self.kind == "sentinel" else self.path
        return int(path[0]) if path else 0

    def connect(self, node: Node, seconds: float) -> Redis:
        """Make a client of a server; each of its waits lasts so many seconds at most."""
        return Redis(host=node[0], port=node[1], **(_bounded(seconds) | self.options))

    def servers(self, timeout: float) -> Servers:
        """Return what the URI names."""
        self.connect(self.hosts[0], timeout)  # so that a wrong option is found at once
        if self.kind == "cluster":
            if self.path:
                raise ValueError("a cluster has no databases")
            return Cluster(self.hosts, self.connect, timeout=timeout)
        if self.kind == "sentinel":
            if not self.path:
                raise StoreUnsupported("The URI of a Sentinel store ends with the name of the service.")
            # They are asked one after the other, so they share the time.
            asking = _bounded(timeout / len(self.hosts))
            asking |= {name: value for name, value in self.options.items() if name.startswith("ssl")}
            sentinel = Sentinel(self.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
            options = _bounded(timeout) | self.options
            options["db"] = self.database
            return _OneServer(sentinel.master_for(self.path[0], **options))  # type: ignore[no-untyped-call]
        ((host, port),) = self.hosts
        self.options["db"] = self.database
        return _OneServer(self.connect((host, port), timeout))


def _bounded(seconds: float) -> dict[str, Any]:
    # A retry of redis-py's would send a script again whose answer is lost.
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}


def _parse(uri: str) -> _Target:
    parts = urlsplit(uri)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
        raise StoreUnsupported("A Redis store is named by redis://, redis+sentinel:// or redis+cluster://.")
    parsers = cast(Mapping[str, Callable[[str], object]], URL_QUERY_ARGUMENT_PARSERS)
    options: dict[str, Any] = {
        name: parsers.get(name, str)(value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
    }
    prefix: str = options.pop("prefix", "hermod")
    if not _PREFIX(prefix):
        raise StoreUnsupported("The prefix of a Redis store has letters, digits, hyphens and underscores.")
    wait = int(options.pop("wait_replicas", 1 if kind else 0))
    if wait < 0:
        raise ValueError("wait_replicas is negative")
    if scheme == "rediss":
        options["ssl"] = True
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    return _Target(
        kind=kind,
        hosts=_hosts(parts.netloc.rpartition("@")[2]),
        path=[part for part in parts.path.split("/") if part],
        prefix=prefix,
        wait=wait,
        options=options,
    )


def _hosts(text: str) -> list[Node]:
    hosts = []
    for part in text.split(","):
        parts = urlsplit(f"//{part}")
        hosts.append((parts.hostname or "127.0.0.1", parts.port or 6379))
    return hosts
