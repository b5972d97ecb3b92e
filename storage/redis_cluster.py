"""Redis Cluster: which node has which slot, and how to follow it when that changes.

redis-py's own client for it sends a command again whose answer was lost, and lets
threads queue up to look for the nodes; here every wait is bounded, and a command is
sent again only if a node has refused it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, TypeAlias

from redis import Redis
from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - redis-py's, which is no OSError
    MovedError,
    RedisError,
    TimeoutError,  # noqa: A004 - redis-py's, which is no OSError
    TryAgainError,
)

from storage.redis_server import Command, Server
from storage.shared_call import SharedCall

Node: TypeAlias = tuple[str, int]  # host and port

#: By which a node says that it has not carried out a command. ASK is not followed: the other node has
#: some of a queue's keys only, until the whole slot has moved.
_REFUSALS = (MovedError, AskError, ClusterDownError, TryAgainError)

_PAUSE = 0.05  # seconds until a command is sent again that a node cannot carry out now


class Cluster:
    """Sends commands to the node that has a key; each call takes twice `timeout` seconds at most.

    `connect` makes a client of a node whose every wait lasts so many seconds at most.
    Nothing is connected before it is needed.
    """

    def __init__(
        self, seeds: Sequence[Node], connect: Callable[[Node, float], Redis], *, timeout: float
    ) -> None:
        self._connect = connect
        self._timeout = timeout
        self._known = list(seeds)  # nodes that can tell who has which slot
        self._owners: dict[int, Node] = {}  # by slot
        self._stale = True  # whether to ask for the owners anew
        self._servers: dict[Node, Server] = {}
        self._look = SharedCall(self._find_owners)
        self._hub: Node | None = None  # the node that was listened at last

    def close(self) -> None:
        """Close every connection."""
        for server in list(self._servers.values()):
            server.close()

    def send(self, key: str, commands: Sequence[Command]) -> list[Any]:
        """Send commands on one key; see `Server.send`."""
        until = time.monotonic() + self._timeout
        slot = key_slot(key.encode())
        node = self._owner(slot)
        for pause in chain([0.0], repeat(_PAUSE)):
            try:
                answers = self._server(node).send(commands)
            except (ConnectionError, TimeoutError):
                self._stale = True  # perhaps another node takes over
                raise
            refusal = answers[0]
            if not isinstance(refusal, _REFUSALS) or time.monotonic() + pause > until:
                break
            self._stale = True
            time.sleep(pause)
            if isinstance(refusal, MovedError):
                node = (refusal.host or node[0], refusal.port)
            else:
                node = self._owner(slot)
        return answers

    def primaries(self) -> list[Redis]:
        """Return a client of each node that has slots."""
        if self._stale:
            self._look()
        return [self._server(node).client for node in sorted(set(self._owners.values()))]

    def hub(self) -> Redis:
        """Return a client of a node, another one than last time: what is published at one all of them hear."""
        self._look()  # whoever only listens would never learn that nodes came and went
        nodes = set(self._owners.values())
        (self._hub,) = random.sample(sorted(nodes - {self._hub} or nodes), 1)
        return self._server(self._hub).client

    def hears(self, connection: Connection) -> bool:
        """Tell whether the node at the other end is in touch with the others."""
        client = self._server((connection.host, connection.port)).client
        facts = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        return bool(facts["cluster_state"] == "ok")

    def _owner(self, slot: int) -> Node:
        if self._stale:
            self._look()
        try:
            return self._owners[slot]
        except KeyError:
            self._stale = True
            raise RedisError(f"No node of the cluster has slot {slot}") from None

    def _server(self, node: Node) -> Server:
        server = self._servers.get(node)
        if server is None:
            server = self._servers.setdefault(node, Server(self._connect(node, self._timeout)))
        return server

    def _find_owners(self) -> None:
        """Ask one node after the other until one knows."""
        nodes = random.sample(self._known, len(self._known))
        failure = RedisError("no node of the cluster knows where the slots are")
        for node in nodes:
            client = self._connect(node, self._timeout / len(nodes))
            try:
                ranges = client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            except RedisError as error:
                failure = error
                continue
            finally:
                client.close()
            if ranges:
                self._learn(node, ranges)
                return
        raise failure

    def _learn(self, teacher: Node, ranges: Sequence[Sequence[Any]]) -> None:
        """Note who has what: each range is its first slot, its last one, the primary, the replicas."""
        owners: dict[int, Node] = {}
        known: list[Node] = []
        for first, last, *members in ranges:
            nodes = [((host or b"").decode() or teacher[0], port) for host, port, *_ in members]
            owners |= dict.fromkeys(range(first, last + 1), nodes[0])
            known += [node for node in nodes if node not in known]
        self._stale = False
        self._known, self._owners = known, owners
        gone = [server for node, server in self._servers.items() if node not in known]
        self._servers = {node: server for node, server in self._servers.items() if node in known}
        for server in gone:
            server.close()
