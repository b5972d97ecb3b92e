"""Confirmations: asking subscribers whether they want to be told.

What they are asked with opens exactly one path, to whoever has it, for as long as the
subscription lasts. It travels as a delivery does, so it is tried again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from queues.limits import Limits
from queues.models import JsonObject, Notice, PendingDelivery, Subscription
from queues.service.deliveries import DeliveryService
from queues.service.subscriptions import SubscriptionService
from queues.signing import SignedUrl, Signer


class ConfirmationService:
    """Asks subscribers, where `required`. `clock` gives ms since the epoch.

    `public_url` and `websocket_url` are where subscribers find this service; None
    leaves them with the path.
    """

    def __init__(
        self,
        deliveries: DeliveryService,
        subscriptions: SubscriptionService,
        signer: Signer,
        limits: Limits,
        clock: Callable[[], int],
        *,
        required: bool,
        public_url: str | None = None,
        websocket_url: str | None = None,
    ) -> None:
        self._deliveries = deliveries
        self._subscriptions = subscriptions
        self._signer = signer
        self._limits = limits
        self._clock = clock
        self._required = required
        self._public_url = public_url
        self._websocket_url = websocket_url

    def ask(self, subscription: Subscription, *, confirmed: bool) -> None:
        """Ask a subscriber to confirm; or, if it is not `confirmed`, tell it that it was taken back.

        Nobody is asked twice within a minute, and nobody where no confirmation is required.
        """
        if not self._required or not self._subscriptions.may_ask(subscription):
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
        payload = msgspec.json.encode(self._message(signed, address.queue, confirmed=confirmed))
        notice = Notice(id=f"msg_{secrets.token_hex(16)}", body=payload, ttl=lifetime)
        self._deliveries.send(
            PendingDelivery(
                notice=notice,
                address=address,
                subscription_id=subscription.id,
                attempt=1,
                posted=now,
                payload=payload,
            )
        )

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
