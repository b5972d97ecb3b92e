"""Who carries messages to which URIs: a new scheme is a new file and a line in FAMILIES."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from notifiers.mail import SCHEMES as MAIL_SCHEMES
from notifiers.mail import MailNotifier, MailSettings
from notifiers.outcome import Delivery, Kind, Notifier, Outcome
from notifiers.signatures import WebhookSigner
from notifiers.webhook import SCHEMES as WEBHOOK_SCHEMES
from notifiers.webhook import Credentials, WebhookNotifier, WebhookSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What notifiers are made of."""

    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    signer: WebhookSigner | None = None  # None: webhooks are not signed
    credentials: Credentials | None = None  # for trust+http and trust+https; None: nothing goes there
    mail: MailSettings | None = None  # None: no mail is sent


def _webhooks(parts: Parts) -> Notifier:
    return WebhookNotifier(parts.webhook, signer=parts.signer, credentials=parts.credentials)


def _mails(parts: Parts) -> Notifier | None:
    return None if parts.mail is None else MailNotifier(parts.mail)


#: Schemes, and who makes their notifier; None where the operator did not set it up.
FAMILIES: Sequence[tuple[Sequence[str], Callable[[Parts], Notifier | None]]] = (
    (WEBHOOK_SCHEMES, _webhooks),
    (MAIL_SCHEMES, _mails),
)


class Registry:
    """The notifier of all schemes: hands each delivery to the one for its scheme."""

    def __init__(self, notifiers: Mapping[str, Notifier]) -> None:
        """Take notifiers by scheme, in lower case; several schemes may share one."""
        self._notifiers = dict(notifiers)

    @property
    def schemes(self) -> Sequence[str]:
        """What subscribers' URIs may begin with."""
        return tuple(self._notifiers)

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Make one attempt; raises nothing but cancellation."""
        notifier = self._notifiers.get(scheme_of(delivery.subscriber))
        if notifier is None:
            return Outcome(kind=Kind.REJECTED, detail="This service does not deliver to such URIs.")
        return await notifier.deliver(delivery)

    async def close(self) -> None:
        """Close all notifiers."""
        notifiers = {id(notifier): notifier for notifier in self._notifiers.values()}
        await asyncio.gather(*(notifier.close() for notifier in notifiers.values()))


def build(parts: Parts) -> Registry:
    """Make the notifiers of all schemes that are set up; opens no connections."""
    return Registry(dict(_members(parts)))


def scheme_of(uri: str) -> str:
    """Return what stands before the first colon, in lower case; "" where there is none."""
    return uri.partition(":")[0].lower() if ":" in uri else ""


def _members(parts: Parts) -> Iterator[tuple[str, Notifier]]:
    for schemes, make in FAMILIES:
        notifier = make(parts)
        if notifier is not None:
            yield from ((scheme, notifier) for scheme in schemes)
