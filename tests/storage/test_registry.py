"""The registry: from the scheme of a URI to a driver."""

import sys
from contextlib import closing

import pytest

from queues.errors import StoreUnavailable, StoreUnsupported
from queues.models import Address
from storage.registry import connect


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(StoreUnsupported, match=r"'papyrus'.*memory.*redis.*sqlite"):
        connect("papyrus://shelf")


@pytest.mark.parametrize(
    ("scheme", "library", "extra"),
    [
        ("redis", "redis", "redis"),
        ("rediss+cluster", "redis", "redis"),
        ("mongodb+srv", "pymongo", "mongodb"),
    ],
)
def test_a_driver_whose_library_is_absent_names_the_extra(monkeypatch, scheme, library, extra):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("storage.redis", "storage.redis_link", "storage.mongodb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(StoreUnsupported, match=rf"hermod\[{extra}\]"):
        connect(f"{scheme}://127.0.0.1:1")


@pytest.mark.parametrize("uri", ["redis://127.0.0.1:1/0", "mongodb://127.0.0.1:1/?replicaSet=nowhere"])
def test_a_server_that_is_not_there_is_unavailable_in_bounded_time(uri):
    with closing(connect(uri, timeout=0.3)) as driver, pytest.raises(StoreUnavailable):
        driver.messages.stats(Address(project="p", queue="q"), now=0)
