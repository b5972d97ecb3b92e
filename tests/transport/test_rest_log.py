"""What a request leaves in the log."""

import io
import json

import pytest
import structlog

from tests.transport.conftest import ONE_STORE
from transport import logs
from transport.settings import LogSettings

pytestmark = ONE_STORE


@pytest.fixture
def lines():
    """Returns what was logged so far, as JSON."""
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


def test_a_request_is_one_line(api, lines):
    answer = api.get("/v2/queues/q1?name=secret")

    (line,) = lines()
    assert line["request_id"] == answer.headers["x-openstack-request-id"]
    assert (line["method"], line["path"], line["operation"]) == ("GET", "/v2/queues/q1", "queue_get")
    assert (line["project"], line["status"], line["error"], line["level"]) == ("blue", 200, None, "info")
    assert line["ms"] >= 0
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/queues?limit=0", "invalid"),
        ("/v2/queues/n@me", "invalid-name"),
        ("/v2/queues/q/claims/1", "claim-not-found"),
    ],
)
def test_a_refused_request_says_why_in_its_line(api, lines, path, code):
    api.get(path)

    (line,) = lines()
    assert line["error"] == code


def test_an_error_of_the_service_names_the_request_and_the_reason(broken_api, lines):
    answer = broken_api.get("/v2/queues")

    error, request = lines()
    assert answer.status_code == 503
    assert (error["level"], error["operation"]) == ("error", "queue_list")
    assert error["reason"] == "The store does not answer."
    assert error["request_id"] == request["request_id"] == answer.headers["x-openstack-request-id"]
