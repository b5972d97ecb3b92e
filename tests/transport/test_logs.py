"""The log: one form for all, and nothing secret in it."""

import io
import json
import logging
import warnings
from typing import Any

import pytest
import structlog

from transport import logs
from transport.settings import LogSettings


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _log_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # configure closes what it replaces
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def configured(level: Any = "info", format: Any = "json", stream: io.StringIO | None = None) -> io.StringIO:  # noqa: A002 - the setting's name
    stream = stream or io.StringIO()
    logs.configure(LogSettings(level=level, format=format), stream)
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_entry_is_a_line_of_json():
    stream = configured()
    structlog.get_logger().info("request", request_id="req-1", project="p", status=201, ms=1.5)
    (entry,) = entries(stream)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "event": "request",
        "level": "info",
        "request_id": "req-1",
        "project": "p",
        "status": 201,
        "ms": 1.5,
    }


def test_the_standard_library_takes_the_same_form():
    stream = configured()
    logging.getLogger("gunicorn.error").warning("worker %s", 7)
    (entry,) = entries(stream)
    assert entry.pop("time")
    assert entry == {"event": "worker 7", "level": "warning", "logger": "gunicorn.error"}


def test_python_warnings_are_logged():
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    (entry,) = entries(stream)
    assert entry["logger"] == "py.warnings"
    assert "careful" in entry["event"]


@pytest.mark.parametrize("format", ["human", "json"])
def test_lesser_entries_are_left_out(format):  # noqa: A002
    stream = configured(level="warning", format=format)
    structlog.get_logger().info("small")
    logging.getLogger("x").info("small")
    structlog.get_logger().warning("big")
    logging.getLogger("x").warning("big")
    assert stream.getvalue().count("big") == 2
    assert "small" not in stream.getvalue()


def test_auto_is_human_on_a_terminal_and_json_elsewhere():
    terminal, other = configured(format="auto", stream=Terminal()), io.StringIO()
    structlog.get_logger().info("hello")
    assert "{" not in terminal.getvalue()
    configured(format="auto", stream=other)
    structlog.get_logger().info("hello")
    assert entries(other)[0]["event"] == "hello"


def test_what_is_bound_to_the_context_is_in_every_entry():
    stream = configured()
    with structlog.contextvars.bound_contextvars(request_id="req-1"):
        structlog.get_logger().info("hello")
    assert entries(stream)[0]["request_id"] == "req-1"


@pytest.mark.parametrize("format", ["human", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        {"token": "hunter2"},
        {"X-Auth-Token": "hunter2"},
        {"authorization": "Bearer hunter2"},
        {"password": "hunter2"},
        {"url_signature": "hunter2"},
        {"secret_key": "hunter2"},
        {"encryption_keys": ["hunter2"]},
        {"body": b"hunter2"},
        {"what": b"hunter2"},
        {"headers": {"URL-Signature": "hunter2"}},
        {"reason": "no answer from redis://u:hunter2@host/0"},
        {"reason": "odd token hmd_0123456789abcdef_hunter2"},
    ],
)
def test_no_secret_is_written(format, secret):  # noqa: A002
    stream = configured(format=format)
    structlog.get_logger().info("oops", **secret)
    assert "oops" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_a_message_of_the_standard_library_hides_passwords_too():
    stream = configured()
    logging.getLogger("x").info("connecting to %s", "redis://u:hunter2@host")
    assert "hunter2" not in stream.getvalue()


def test_what_only_resembles_a_secret_is_written():
    stream = configured()
    structlog.get_logger().info("made", token_id="0123", key="limits", tokens=3)
    entry = entries(stream)[0]
    assert (entry["token_id"], entry["key"], entry["tokens"]) == ("0123", "limits", 3)


@pytest.mark.parametrize("format", ["human", "json"])
def test_a_traceback_shows_no_local_variables(format):  # noqa: A002
    stream = configured(format=format)
    body = "hunter2"
    try:
        raise ValueError(len(body))
    except ValueError:
        structlog.get_logger().exception("broken")
        logging.getLogger("x").exception("broken")
    assert stream.getvalue().count("ValueError: 7") == 2
    assert "hunter2" not in stream.getvalue().replace('body = "hunter2"', "")


def test_clients_cannot_write_to_the_terminal():
    stream = configured(format="human")
    structlog.get_logger().info("request", project="a\x1b[31m\nb")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
