"""What a pool that is down does to the others, and what is made good when it is back."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from queues.errors import StoreUnavailable
from queues.models import Address, NewMessage
from queues.service.pools import PoolChanges
from transport.service import Service
from transport.settings import Settings
from transport.wiring import open_service

QUEUE = Address(project="tenant", queue="jobs")
FAILED = Address(project="tenant", queue="failed")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with the pools east, which gets the queues, and west."""
    settings = Settings(store=f"sqlite:///{tmp_path}/control.db", pooling=True)
    with closing(open_service(settings)) as opened:
        opened.pools.put("east", uri=f"sqlite:///{tmp_path}/east.db", weight=1)
        opened.pools.put("west", uri=f"sqlite:///{tmp_path}/west.db", weight=0)
        yield opened


def post(service: Service, address: Address, body: bytes) -> None:
    service.queues.append(address, [NewMessage(body=body, ttl=600)])


def count(service: Service, address: Address) -> int:
    return service.queues.stats(address)[0].total


def fail(*_args: object, **_given: object) -> Any:
    raise StoreUnavailable


def test_a_deletion_that_failed_is_made_good_by_a_repetition(service, monkeypatch):
    post(service, QUEUE, b"1")
    with monkeypatch.context() as down:
        down.setattr(service.pools.driver("east").messages, "drop", fail)
        with pytest.raises(StoreUnavailable):
            service.queues.delete(QUEUE)

    service.queues.delete(QUEUE)
    service.queues.create(QUEUE, {})

    assert count(service, QUEUE) == 0


def test_a_claim_goes_on_while_the_pool_of_the_dead_letter_queue_is_down(service, monkeypatch):
    service.queues.create(QUEUE, {"_max_claim_count": 1, "_dead_letter_queue": FAILED.queue})
    service.pools.update("east", PoolChanges(weight=0))
    service.pools.update("west", PoolChanges(weight=1))
    service.queues.create(FAILED, {})
    post(service, QUEUE, b'"bad"')
    claim = service.claims.create(QUEUE)
    assert claim is not None
    service.claims.release(QUEUE, claim.claim.id)
    post(service, QUEUE, b'"good"')

    with monkeypatch.context() as down:
        down.setattr(service.pools.driver("west").messages, "post", fail)
        claim = service.claims.create(QUEUE)

    assert claim is not None
    assert [message.body for message in claim.claim.messages] == [b'"good"']
    assert count(service, FAILED) == 0
    service.dead_letters.sweep_all(Event())
    assert count(service, FAILED) == 1
