"""What a message says about itself: its form, as a store keeps it."""

import pytest

from queues import versions
from queues.errors import StoreUnsupported
from queues.versions import sealed_of


@pytest.mark.parametrize(("form", "sealed"), [(False, False), (True, True), (0, False), (1, True)])
def test_version_1_is_a_boolean_or_its_number(form, sealed):
    assert sealed_of(form) is sealed


@pytest.mark.parametrize(("form", "version"), [(2, 2), (3, 2), (4, 3), (255, 128)])
def test_a_newer_version_is_refused_by_number(form, version):
    with pytest.raises(StoreUnsupported, match=f"A message has version {version}, and this release knows 1"):
        sealed_of(form)


def test_a_release_reads_every_version_up_to_its_own(monkeypatch):
    monkeypatch.setattr(versions, "MESSAGE_VERSION", 3)

    assert [sealed_of(form) for form in range(6)] == [False, True] * 3
    with pytest.raises(StoreUnsupported, match="A message has version 4, and this release knows 3"):
        sealed_of(6)
