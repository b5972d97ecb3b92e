"""Signatures by which a subscriber knows who sent a webhook: Standard Webhooks 1.0.

What is signed is `<id>.<timestamp>.<body>`. `v1` is HMAC-SHA256 under a key per subscription,
`v1a` is ed25519 under the service's own key. While keys are rotated, all of them sign.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from queues.errors import BadSignature
from queues.webhook_keys import PUBLIC, SECRET, read_key, write_key

TOLERANCE = 300  # seconds between the clocks of sender and receiver, and for the way


class WebhookSigner:
    """Signs webhooks with all of its keys, the newest first."""

    def __init__(self, service_keys: Sequence[bytes], private_keys: Sequence[bytes] = ()) -> None:
        """Take keys from which others are derived, and private ones of ed25519 (32 bytes each)."""
        self._service_keys = tuple(service_keys)
        self._private_keys = tuple(map(Ed25519PrivateKey.from_private_bytes, private_keys))

    def secrets(self, subscription_id: str) -> list[str]:
        """Return what the subscriber verifies `v1` with, as `whsec_...`, the newest first."""
        return [write_key(SECRET, key) for key in self._derive(subscription_id)]

    def public_keys(self) -> list[str]:
        """Return what any subscriber verifies `v1a` with, as `whpk_...`, the newest first."""
        return [write_key(PUBLIC, key.public_key().public_bytes_raw()) for key in self._private_keys]

    def headers(
        self, delivery_id: str, subscription_id: str, body: bytes, *, timestamp: int
    ) -> dict[str, str]:
        """Return the headers of one attempt at a time (Unix seconds); none where there is no key.

        Raises ValueError for an id with a full stop, which could be read in two ways.
        """
        content = _content(delivery_id, str(timestamp), body)
        shared = [f"v1,{_base64(_hmac(key, content))}" for key in self._derive(subscription_id)]
        asymmetric = [f"v1a,{_base64(key.sign(content))}" for key in self._private_keys]
        if not shared and not asymmetric:
            return {}
        return {
            "webhook-id": delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(shared + asymmetric),
        }

    def _derive(self, subscription_id: str) -> list[bytes]:
        return [_hmac(key, b"webhook:" + subscription_id.encode()) for key in self._service_keys]


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[str], *, now: float) -> None:
    """Return if one of the keys (`whsec_...` or `whpk_...`) made one of the signatures.

    This is the receiver's part. Names of headers are lower case; `now` is Unix seconds.

    Raises BadSignature, also for an attempt that is too old or from the future; Invalid for a bad key.
    """
    try:
        timestamp = headers["webhook-timestamp"]
        content = _content(headers["webhook-id"], timestamp, body)
        is_timely = abs(now - int(timestamp)) <= TOLERANCE
    except (KeyError, ValueError) as error:
        raise BadSignature("The webhook does not carry a signature.") from error
    shown = headers.get("webhook-signature", "").split(" ")
    if not is_timely or not any(_is_genuine(entry, content, key) for entry in shown for key in keys):
        raise BadSignature("The webhook was not signed by this service, or not now.")


def _is_genuine(entry: str, content: bytes, key: str) -> bool:
    version, _, signature = entry.partition(",")
    try:
        raw = base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error):
        return False
    if version == "v1" and key.startswith(SECRET):
        return hmac.compare_digest(_hmac(read_key(SECRET, key), content), raw)
    if version == "v1a" and key.startswith(PUBLIC):
        try:
            Ed25519PublicKey.from_public_bytes(read_key(PUBLIC, key)).verify(raw, content)
        except InvalidSignature:
            return False
        return True
    return False


def _content(delivery_id: str, timestamp: str, body: bytes) -> bytes:
    if not delivery_id or "." in delivery_id or not timestamp.isdigit():
        raise ValueError("an id that is signed has no full stop")
    return b".".join((delivery_id.encode(), timestamp.encode(), body))


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, hashlib.sha256)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
