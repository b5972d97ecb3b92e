"""The loads of the hot path run and move what they say; how fast is for the benchmark to tell."""

import logging
from contextlib import closing

import pytest
import structlog

from bench import hotpath, rest
from bench.yardsticks.sqlite import Rows


@pytest.fixture(autouse=True)
def _restored_log():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = handlers, level


def test_the_yardstick_claims_and_deletes_what_was_posted(tmp_path):
    with closing(Rows(f"sqlite:///{tmp_path}/bare.db")) as queue:
        queue.post(10)

        assert queue.take(10) == 10
        assert queue.take(10) == 0


def test_every_level_is_compared_on_every_load(tmp_path):
    figures = hotpath.measure(tmp_path, rounds=2)

    assert [figure.load for figure in figures] == list(hotpath.LOADS) * 2
    assert all(figure.ratio > 0 for figure in figures)


def test_a_socket_and_a_server_see_the_same_request():
    request = rest.delete(["1", "2"])

    head, _, body = request.wire(rest.Target()).partition(b"\r\n\r\n")
    assert head.startswith(b"DELETE /v2/queues/load/messages?ids=1,2 HTTP/1.1\r\n")
    assert request.environ(rest.Target())["RAW_URI"] == "/v2/queues/load/messages?ids=1,2"
    assert request.environ(rest.Target())["QUERY_STRING"] == "ids=1,2"
    assert body == b""
