"""Opens each driver in turn, on a clock that only the test moves."""

from contextlib import closing

import pytest

from tests.storage.pooled import connect
from tests.storage.probe import Clock, Probe
from tests.storage.variants import MIXES, VARIANTS


@pytest.fixture(params=(*VARIANTS, *MIXES), ids=lambda variant: variant.name)
def variant(request):
    return request.param


@pytest.fixture
def uri(variant, tmp_path):
    return variant.uri(tmp_path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def driver(uri, clock):
    with closing(connect(uri, timeout=5.0, clock=clock)) as opened:
        yield opened


@pytest.fixture
def queue(driver, clock):
    return Probe(driver.messages, clock)
