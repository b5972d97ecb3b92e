import asyncio

import pytest

from notifiers.mail import MailSettings
from notifiers.outcome import Delivery, Kind, Outcome
from notifiers.registry import Parts, Registry, build, scheme_of


class Recorder:
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.closed = 0

    async def deliver(self, delivery: Delivery) -> Outcome:
        self.deliveries.append(delivery)
        return Outcome(kind=Kind.DELIVERED)

    async def close(self) -> None:
        self.closed += 1


def a_delivery(subscriber: str) -> Delivery:
    return Delivery(
        id="d", subscription_id="s", project="p", queue="q", subscriber=subscriber, payload=b"", body=b""
    )


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("http://x", "http"),
        ("TRUST+HTTPS://x", "trust+https"),
        ("mailto:a@b", "mailto"),
        ("x", ""),
        (":x", ""),
    ],
)
def test_schemes(uri, scheme):
    assert scheme_of(uri) == scheme


def test_each_scheme_has_its_notifier():
    web, mail = Recorder(), Recorder()
    registry = Registry({"http": web, "https": web, "mailto": mail})

    async def run() -> None:
        for subscriber in ("http://x", "HTTPS://x", "mailto:x"):
            assert (await registry.deliver(a_delivery(subscriber))).kind is Kind.DELIVERED
        await registry.close()

    asyncio.run(run())
    assert [len(each.deliveries) for each in (web, mail)] == [2, 1]
    assert [each.closed for each in (web, mail)] == [1, 1]


def test_other_schemes_are_refused():
    outcome = asyncio.run(Registry({}).deliver(a_delivery("gopher://x")))
    assert (outcome.kind, outcome.detail) == (Kind.REJECTED, "This service does not deliver to such URIs.")


def test_mail_is_there_where_it_is_set_up():
    web = {"http", "https", "trust+http", "trust+https"}
    assert set(build(Parts()).schemes) == web
    settings = MailSettings(host="127.0.0.1", port=25, sender="hermod@example.org")
    assert set(build(Parts(mail=settings)).schemes) == web | {"mailto"}


def test_what_was_never_used_can_be_closed():
    async def run() -> None:
        await build(Parts(mail=MailSettings(host="h", port=25, sender="hermod@example.org"))).close()

    asyncio.run(run())
