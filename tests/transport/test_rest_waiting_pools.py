"""Long polling where queues live in pools: who waits for a queue that is not there yet is told, too."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.transport.conftest import POOLS

pytestmark = POOLS

WAITS = [("POST", "claims?wait=20", 201), ("GET", "messages?wait=20&echo=true", 200)]


@pytest.mark.parametrize(("method", "what", "status"), WAITS, ids=["claim", "list"])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "unknown"])
def test_who_waits_is_told_of_messages_in_whatever_pool(api, declared, method, what, status):
    if declared:
        api.create_queue("q1")
    room = api.service.waiting
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(api.call, method, f"/v2/queues/q1/{what}")
        while not room._all:
            assert not waiting.done()
        api.post_bodies("here")

        answer = waiting.result(timeout=15)

    assert answer.status_code == status
    assert [message["body"] for message in answer.json["messages"]] == ["here"]
