"""Confirmations: asking subscribers whether they want to be told.

What they are asked with opens exactly one path, to whoever has it, for as long as the
subscription lasts. It travels as a delivery does, so it is tried again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import msgspec

from queues.limits import Limits
from queues.models import JsonObject, Notice, PendingDelivery, Subscription
from queues.service.deliveries import DeliveryService
from queues.signing import SignedUrl, Signer

#: By whether it is to confirm: the option with a subscription's own template, and what it replaces.
_TEMPLATES: Mapping[bool, tuple[str, Mapping[str, str]]] = {
    True: (
        "subscription_confirmation_email_template",
        {
            "topic": "Please confirm a subscription",
            "body": "Somebody wants you to be told of the messages of the queue {0} of project {1}.\n"
            "If you want that, open this page: {2}\nIf you do not, there is nothing to do.\n",
        },
    ),
    False: (
        "unsubscribe_confirmation_email_template",
        {
            "topic": "A subscription was taken back",
            "body": "You are no longer told of the messages of the queue {0} of project {1}.\n"
            "If that was a mistake, open this page: {2}\n",
        },
    ),
}

_AGAIN = 60  # seconds before a subscriber is asked again


class ConfirmationService:
    """Asks subscribers, where `required`. `clock` gives ms since the epoch.

    `public_url` and `websocket_url` are where subscribers find this service; None
    leaves them with the path. `page_url` is a page that confirms for whoever gets mail;
    without one nobody is asked by mail.
    """

    def __init__(
        self,
        deliveries: DeliveryService,
        signer: Signer,
        limits: Limits,
        clock: Callable[[], int],
        *,
        required: bool,
        public_url: str | None = None,
        websocket_url: str | None = None,
        page_url: str | None = None,
    ) -> None:
        self._deliveries = deliveries
        self._signer = signer
        self._limits = limits
        self._clock = clock
        self._required = required
        self._public_url = public_url
        self._websocket_url = websocket_url
        self._page_url = page_url

    def ask(self, subscription: Subscription, *, confirmed: bool) -> None:
        """Ask a subscriber to confirm; or, if it is not `confirmed`, tell it that it was taken back.

        No subscriber of a queue is asked twice within a minute, whatever becomes of its
        subscriptions, and nobody where no confirmation is required.
        """
        by_mail = subscription.subscriber.startswith("mailto:")
        if not self._required or (by_mail and self._page_url is None):
            return
        now = self._clock()
        lifetime = subscription.ttl if confirmed else self._limits.default_subscription_ttl
        address = subscription.address
        signed = self._signer.sign(
            address.project,
            address.queue,
            paths=[f"subscriptions/{subscription.id}/confirm"],
            methods=["PUT"],
            expires=datetime.fromtimestamp(now / 1000 + lifetime, UTC),
        )
        message = msgspec.json.encode(self._message(signed, address.queue, confirmed=confirmed))
        payload, options = message, None
        if by_mail:
            payload, options = self._mail(subscription, signed, confirmed=confirmed)
        notice = Notice(id=f"msg_{secrets.token_hex(16)}", body=message, ttl=lifetime)
        self._deliveries.send(
            PendingDelivery(
                notice=notice,
                address=address,
                subscription_id=subscription.id,
                attempt=1,
                posted=now,
                payload=payload,
                options=options,
            ),
            key=_key(subscription, confirmed=confirmed),
            window=_AGAIN,
        )

    def _mail(
        self, subscription: Subscription, signed: SignedUrl, *, confirmed: bool
    ) -> tuple[bytes, JsonObject]:
        """Return the text of a mail, and its sender and subject, by the subscription's template if it has one."""
        name, default = _TEMPLATES[confirmed]
        given = subscription.options.get(name)
        template = {**default, **(given if isinstance(given, dict) else {})}
        (path,) = signed.paths
        query = {
            "Signature": signed.signature,
            "Methods": "PUT",
            "Paths": path,
            "Project": signed.project,
            "Expires": signed.expires,
            "Url": (self._public_url or "").rstrip("/") + path,
            "Queue": subscription.address.queue,
        }
        link = f"{self._page_url}?{urlencode(query, quote_via=quote)}"
        text = str(template["body"])
        # Not str.format, which would let a tenant look into objects.
        for mark, value in zip(("{0}", "{1}", "{2}"), (query["Queue"], signed.project, link), strict=True):
            text = text.replace(mark, value)
        options: JsonObject = {"subject": str(template["topic"])}
        if template.get("sender"):
            options["from"] = str(template["sender"])
        return text.encode(), options

    def _message(self, signed: SignedUrl, queue: str, *, confirmed: bool) -> JsonObject:
        (path,) = signed.paths
        asked = (
            f"You have chosen to subscribe to the queue: {queue}."
            if confirmed
            else f"You have unsubscribed successfully to the queue: {queue}."
        )
        message: JsonObject = {
            "Message_Type": "SubscriptionConfirmation" if confirmed else "UnsubscribeConfirmation",
            "Message": f"{asked} To change that, send a PUT to the path below with these headers and a body.",
            "URL-Signature": signed.signature,
            "URL-Methods": "PUT",
            "URL-Paths": path,
            "X-Project-ID": signed.project,
            "URL-Expires": signed.expires,
            "SubscribeBody": {"confirmed": True},
            "UnsubscribeBody": {"confirmed": False},
            "queue_name": queue,
        }
        if self._public_url is not None:
            message["WSGISubscribeURL"] = self._public_url.rstrip("/") + path
        if self._websocket_url is not None:
            message["WebSocketSubscribeURL"] = self._websocket_url.rstrip("/") + path
        return message


def _key(subscription: Subscription, *, confirmed: bool) -> str:
    address = subscription.address
    whom = json.dumps([confirmed, address.project, address.queue, subscription.subscriber])
    return f"ask:{hashlib.sha256(whom.encode()).hexdigest()}"
