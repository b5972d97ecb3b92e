"""The memory of a Redis that nobody else uses."""

from contextlib import closing

from bench import memory
from storage.registry import connect
from tests import servers


def test_a_queued_message_of_200_bytes_takes_less_than_600():
    server = servers.redis_server()
    server.start()
    try:
        with closing(connect(server.base)) as driver:
            ready, claimed = memory.measure(driver, server.base, size=20_000)
    finally:
        server.stop()

    taken, taken_claimed = ready.columns["bytes"], claimed.columns["bytes"]
    assert isinstance(taken, float)
    assert isinstance(taken_claimed, float)
    assert 200 < taken < memory.GOAL
    assert ready.verdict.startswith("met")
    assert taken_claimed > taken
