from contextlib import closing

import pytest

from storage.registry import connect
from tests.storage.variants import VARIANTS


@pytest.fixture(params=VARIANTS, ids=lambda variant: variant.name)
def variant(request):
    return request.param


@pytest.fixture
def uri(request, variant, tmp_path):
    """The URI of a fresh store."""
    return variant.uri(request, tmp_path)


@pytest.fixture
def driver(uri):
    """An opened, fresh store."""
    with closing(connect(uri)) as opened:
        yield opened
