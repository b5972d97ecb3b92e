"""Redis and MongoDB fail in the middle of a load: refusals in bounded time, nothing answered is lost, and it resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import pytest
import redis

from queues.errors import StoreUnavailable
from queues.models import Address, Lease, NewMessage, Once, Selection
from queues.ports import MessageStore
from storage.registry import connect
from tests import servers
from tests.acceptance.faults import Held, Refused, Target, load
from tests.servers import Process, Store

TIMEOUT = 1.0  # seconds; the setting storage.timeout
BOUND = 2 * TIMEOUT + 1.5  # seconds that a request may take, on a busy machine

WORK = Address(project="p", queue="work")
LONG = Lease(ttl=3600, grace=60, limit=3)


class StoreTarget:
    """The queue of a store, without the service in front of it."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def post(self, bodies: Sequence[str], key: str | None) -> None:
        messages = [NewMessage(body=body.encode(), ttl=3600) for body in bodies]
        once = None if key is None else Once(key=key, fingerprint=key.encode(), window=600)
        with refusals():
            self._store.post(WORK, messages, now=self._store.clock(), once=once, create=True)

    def claim(self) -> Sequence[Held]:
        with refusals():
            claim = self._store.claim(WORK, LONG, now=self._store.clock()).claim
        if claim is None:
            return []
        return [Held(message.body.decode(), f"{message.id} {claim.id}") for message in claim.messages]

    def delete(self, held: Held) -> None:
        id_, claim_id = held.handle.split()
        with refusals():
            self._store.delete(WORK, id_, now=self._store.clock(), claim_id=claim_id)

    def everything(self) -> Sequence[str]:
        selection = Selection(limit=1_000_000, include_claimed=True, include_delayed=True)
        return [
            message.body.decode() for message in self._store.list(WORK, selection, now=self._store.clock())
        ]


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable as error:
        raise Refused from error


@contextmanager
def store_of(uri: str) -> Iterator[Callable[[], AbstractContextManager[Target]]]:
    """Open a store, and make targets of it."""
    with closing(connect(uri, timeout=TIMEOUT)) as driver:
        yield lambda: nullcontext(StoreTarget(driver.messages))


def made(make: Callable[[], Store]) -> Iterator[Store]:
    store = make()
    try:
        store.start()
        yield store
    finally:
        store.stop()


PLAIN = {
    "redis": servers.redis_server,
    "redis-cluster": servers.redis_cluster,
    "mongodb": servers.mongodb_server,
}
REPLICATED = {
    # With a replica more than it takes, since a master that comes back is no replica for ten seconds.
    "redis-sentinel": lambda: servers.redis_sentinel(3),
    "mongodb": lambda: servers.mongodb_server(3),
}


@pytest.fixture(scope="module", params=PLAIN)
def plain(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store that nobody else uses and that one server's end puts out of service."""
    yield from made(PLAIN[request.param])


@pytest.fixture(scope="module", params=REPLICATED)
def replicated(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store that nobody else uses and that goes on without one of its servers."""
    yield from made(REPLICATED[request.param])


def leader(store: Store) -> Process:
    found = store.leader()
    assert found is not None
    return found


def test_a_restart_loses_nothing(plain: Store, tmp_path: Path) -> None:
    with store_of(plain.uri(tmp_path)) as target, load(target, bound=BOUND) as ledger:
        ledger.flows()
        leader(plain).kill()
        ledger.refuses()
        plain.start()
        ledger.flows()


def test_a_leader_that_is_killed_is_replaced(replicated: Store, tmp_path: Path) -> None:
    with store_of(replicated.uri(tmp_path)) as target, load(target, bound=BOUND) as ledger:
        ledger.flows()
        killed = leader(replicated)
        killed.kill()
        ledger.refuses(1)
        ledger.flows()
        killed.start()
        ledger.flows()


over_sentinel = pytest.mark.parametrize("replicated", ["redis-sentinel"], indirect=True)
over_mongodb = pytest.mark.parametrize("replicated", ["mongodb"], indirect=True)


@over_sentinel
def test_a_leader_that_is_paused_is_replaced_and_does_no_harm_when_it_wakes(
    replicated: Store, tmp_path: Path
) -> None:
    with store_of(replicated.uri(tmp_path)) as target, load(target, bound=BOUND) as ledger:
        ledger.flows()
        paused = leader(replicated)
        paused.pause()
        try:
            ledger.refuses(1)
            ledger.flows()
        finally:
            paused.resume()
        ledger.flows()


@over_sentinel
def test_what_no_replica_has_is_not_answered(replicated: Store, tmp_path: Path) -> None:
    servers.eventually(replicated.ready)
    with store_of(replicated.uri(tmp_path)) as target, load(target, bound=BOUND) as ledger:
        ledger.flows()
        alone = leader(replicated)
        replicas = [each for each in replicated.processes[:4] if each is not alone]
        for replica in replicas:
            replica.pause()
        try:
            with closing(redis.Redis(port=alone.port)) as client:
                client.execute_command("CLIENT KILL TYPE replica")
            ledger.refuses()
            alone.kill()
        finally:
            for replica in replicas:
                replica.resume()
        ledger.flows()
        alone.start()


@over_mongodb
def test_a_leader_that_steps_down_is_replaced(replicated: Store, tmp_path: Path) -> None:
    with store_of(replicated.uri(tmp_path)) as target, load(target, bound=BOUND) as ledger:
        ledger.flows()
        for _ in range(2):
            servers.eventually(replicated.ready)
            servers.mongod_says(leader(replicated), "replSetStepDown", value=12)
            ledger.flows()
