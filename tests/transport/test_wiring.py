"""What the parts are told by the settings."""

from __future__ import annotations

from contextlib import closing

import pytest

from notifiers import registry
from notifiers.registry import Parts, Registry
from transport.settings import Settings
from transport.wiring import notifier_worker, open_service


def test_no_attempt_lasts_longer_than_the_notifier_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes longer for is done a second time, by the copy that stands for it."""
    made: list[Parts] = []

    def build(parts: Parts) -> Registry:
        made.append(parts)
        return Registry({})

    monkeypatch.setattr(registry, "build", build)
    settings = Settings.model_validate(
        {"store": "memory:", "notifier": {"timeout": 7}, "mail": {"host": "mail.example.org"}}
    )
    with closing(open_service(settings)) as service:
        notifier_worker(service)

    (parts,) = made
    assert parts.mail is not None
    assert parts.webhook.timeout == parts.mail.timeout == 7
