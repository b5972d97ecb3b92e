"""What the tests of the whole service share."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import structlog

from tests import servers
from tests.acceptance.direct import Direct
from tests.acceptance.processes import Hermod

#: Makes a service with a folder of its own; it runs when it is told to, and never longer than the test.
MakeHermod: TypeAlias = Callable[..., Hermod]


#: How to name a store that belongs to a folder and that several services can share.
_SHARED: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/shared.db",
    "redis": servers.redis_uri,
    "mongodb": servers.mongodb_uri,
}


@pytest.fixture(params=_SHARED)
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a store of the test's own, of each kind in turn."""
    return _SHARED[request.param](tmp_path)


@pytest.fixture(scope="module")
def direct() -> Iterator[Direct]:
    """The REST application in this process; its requests are not logged, and its disk is memory where possible."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="hermod-test-", dir=memory) as folder:
        application = Direct(Path(folder))
        try:
            yield application
        finally:
            application.close()
            structlog.reset_defaults()


@pytest.fixture
def hermod(tmp_path: Path) -> Iterator[MakeHermod]:
    """A way to make services, which are killed at the end of the test."""
    made: list[Hermod] = []

    def make(command: str = "serve", *arguments: str, store: str = "", **environ: str) -> Hermod:
        folder = tmp_path / f"hermod-{len(made)}"
        folder.mkdir()
        made.append(Hermod(folder=folder, uri=store, command=command, arguments=arguments, environ=environ))
        return made[-1]

    try:
        yield make
    finally:
        for service in made:
            if service.process is not None:
                service.kill()
            sys.stdout.write(service.log[-20_000:])  # for whoever reads about a failure
