"""How many files a process may have open."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from transport.files import allow_files


@pytest.fixture
def hard() -> Iterator[int]:
    """The most files that may be open; the test may lower what is allowed at present."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_as_many_files_may_be_open_as_the_system_allows(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with capture_logs() as lines:
        allow_files(1000, "some.setting")

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert lines == []


def test_too_few_files_are_worth_a_warning(hard: int) -> None:
    with capture_logs() as lines:
        allow_files(hard, "some.setting")

    assert [(line["log_level"], line["setting"]) for line in lines] == [("warning", "some.setting")]
