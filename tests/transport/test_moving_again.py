"""A queue that comes back to a pool that it was moved away from."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from queues.models import Address, NewMessage
from queues.service.pools import PoolChanges
from transport.service import Service
from transport.settings import Settings
from transport.wiring import open_service

QUEUE = Address(project="tenant", queue="jobs")
NEVER = Event()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with the pools east, which gets the queues, and west."""
    settings = Settings(store=f"sqlite:///{tmp_path}/control.db", pooling=True)
    with closing(open_service(settings)) as opened:
        opened.pools.put("east", uri=f"sqlite:///{tmp_path}/east.db", weight=1)
        opened.pools.put("west", uri=f"sqlite:///{tmp_path}/west.db", weight=0)
        yield opened


def set_weights(service: Service, **weights: int) -> None:
    for name, weight in weights.items():
        service.pools.update(name, PoolChanges(weight=weight))


def drain(service: Service, pool: str) -> None:
    service.moving.start(pool)
    assert service.moving.run(NEVER)
    assert service.moving.stop(pool).left == 0


def post(service: Service, body: bytes) -> None:
    service.queues.append(QUEUE, [NewMessage(body=body, ttl=60)])


def where(service: Service) -> str:
    queue = service.queues.find(QUEUE)
    assert queue is not None
    return queue.pool


def count(service: Service) -> int:
    return service.queues.stats(QUEUE)[0].total


def test_a_queue_is_moved_there_and_back(service):
    post(service, b"1")
    set_weights(service, west=1)

    drain(service, "east")
    post(service, b"2")
    drain(service, "west")

    assert (where(service), count(service)) == ("east", 2)


def test_a_queue_that_was_declared_anew_where_it_was_moved_away_is_moved_again(service):
    post(service, b"1")
    set_weights(service, west=1)
    drain(service, "east")
    service.queues.delete(QUEUE)
    set_weights(service, west=0)
    service.queues.create(QUEUE, {})
    assert where(service) == "east", "where it is still shut, and nobody has been there since"

    set_weights(service, west=1)
    drain(service, "east")
    post(service, b"2")

    assert (where(service), count(service)) == ("west", 1)


def test_a_pool_that_is_removed_while_it_is_drained_ends_the_drain(service, monkeypatch):
    post(service, b"1")
    set_weights(service, west=1)
    service.moving.start("east")
    step = service.moving._drain

    def remove_first(pool, stop):
        service.pools.remove("east", in_use=lambda: False)
        step(pool, stop)

    monkeypatch.setattr(service.moving, "_drain", remove_first)

    assert service.moving.run(NEVER)
