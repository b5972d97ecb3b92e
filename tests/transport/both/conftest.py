"""Every test here runs in each dialect: REST, and the websocket protocol in both encodings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from tests.transport.both.dialects import DIALECTS, Speaker, speaker
from tests.transport.conftest import OpenApi

OpenSpeaker: TypeAlias = Callable[..., Speaker]

#: The core of the protocol, over a store that keeps nothing in memory too.
CORE = pytest.mark.parametrize("stores", ["memory", "sqlite"], indirect=True)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    """How a client speaks."""
    return str(request.param)


@pytest.fixture
def open_speaker(open_api: OpenApi, dialect: str) -> OpenSpeaker:
    """Build a service with other settings than the defaults, and return a client of it."""

    def build(**settings: Any) -> Speaker:
        return speaker(open_api(**settings), dialect)

    return build


@pytest.fixture
def me(open_speaker: OpenSpeaker) -> Speaker:
    """A client of a service at the default settings."""
    return open_speaker()
