"""Asking for confirmation by mail: templates, links, and who is not asked."""

from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from queues.models import Address, PendingDelivery
from queues.service.deliveries import PENDING
from queues.service.subscriptions import Terms
from queues.tickets import read_pending
from storage.registry import connect
from tests.boxes import take
from tests.storage.probe import Clock
from transport.service import Service
from transport.settings import Settings
from transport.settings.model import NotifierSettings, SignedUrlSettings
from transport.wiring import assemble

QUEUE = Address(project="blue", queue="jobs")
PAGE = "https://confirm.example.org/page"


def service(clock: Clock, **notifier: Any) -> Service:
    settings = Settings(
        store="memory:",
        signed_url=SignedUrlSettings(secret_keys=(SecretStr("a key of the tests"),)),
        notifier=NotifierSettings(require_confirmation=True, **notifier),
    )
    return assemble(settings, connect("memory:", clock=clock), clock=clock)


def asked(opened: Service, subscriber: str, options: dict[str, Any] | None = None) -> list[PendingDelivery]:
    """Subscribe somebody, ask for confirmation, and return what is to be delivered."""
    terms = Terms(subscriber=subscriber, options=options)
    opened.confirmations.ask(opened.subscriptions.create(QUEUE, terms).subscription, confirmed=True)
    (batch,) = take(opened.deliveries, 10)
    return list(batch.pending)


@pytest.fixture
def opened():
    with closing(service(Clock(), external_confirmation_url=PAGE)) as found:
        yield found


def test_e11_a_mail_has_a_link_that_says_what_to_send(opened):
    (mail,) = asked(opened, "mailto:somebody@example.org")
    assert mail.payload is not None
    link = next(word for word in mail.payload.decode().split() if word.startswith(PAGE))
    query = parse_qs(urlsplit(link).query)
    assert query["Methods"] == ["PUT"]
    assert query["Project"] == ["blue"]
    assert query["Queue"] == ["jobs"]
    assert query["Paths"] == [f"/v2/queues/jobs/subscriptions/{mail.subscription_id}/confirm"]
    assert len(query["Signature"][0]) == 64
    assert query["Expires"][0].count(":") == 2
    assert ":" not in urlsplit(link).query
    assert mail.options == {"subject": "Please confirm a subscription"}


def test_a_subscription_can_have_a_template_of_its_own(opened):
    template = {
        "sender": "list@example.org",
        "topic": "Really?",
        "body": "{0} of {1}: {2} {0.__class__} {unknown}",
    }
    options = {"subscription_confirmation_email_template": template}
    (mail,) = asked(opened, "mailto:somebody@example.org", options)
    assert mail.payload is not None
    text = mail.payload.decode()
    assert text.startswith(f"jobs of blue: {PAGE}?Signature=")
    assert text.endswith(" {0.__class__} {unknown}")
    assert mail.options == {"subject": "Really?", "from": "list@example.org"}


def test_e11_nobody_is_asked_by_mail_without_a_page():
    with closing(service(Clock())) as opened:
        terms = Terms(subscriber="mailto:somebody@example.org")
        opened.confirmations.ask(opened.subscriptions.create(QUEUE, terms).subscription, confirmed=True)
        assert take(opened.deliveries, 10) == []


def test_e10_nobody_is_asked_twice_within_a_minute():
    clock = Clock()
    with closing(service(clock, external_confirmation_url=PAGE)) as opened:
        made = opened.subscriptions.create(QUEUE, Terms(subscriber="http://example.org/")).subscription
        for _ in range(3):
            opened.confirmations.ask(opened.subscriptions.get(QUEUE, made.id), confirmed=True)
        clock.advance(60)
        opened.confirmations.ask(opened.subscriptions.get(QUEUE, made.id), confirmed=True)
        store = opened.pools.driver("").messages
        assert store.stats(PENDING, now=clock.now).total == 2


def test_what_is_sent_survives_the_store():
    clock = Clock()
    with closing(service(clock, external_confirmation_url=PAGE)) as opened:
        (mail,) = asked(opened, "mailto:somebody@example.org")
        store = opened.pools.driver("").messages
        (message,) = store.get(PENDING, [mail.id], now=clock.now)
        assert read_pending(message, lambda project, text: text) == mail
