"""How the keys of webhooks are written: Standard Webhooks 1.0, a prefix and base64."""

from __future__ import annotations

import base64

from queues.errors import Invalid

SECRET, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"

_KEY_BYTES = 32  # of an ed25519 key; a private key may be followed by its public key


def write_key(prefix: str, raw: bytes) -> str:
    """Return a key as text."""
    return prefix + base64.b64encode(raw).decode()


def read_key(prefix: str, text: str) -> bytes:
    """Return the bytes of a key; raises Invalid, without the key."""
    try:
        if not text.startswith(prefix):
            raise ValueError
        return base64.b64decode(text.removeprefix(prefix), validate=True)
    except ValueError as error:
        raise Invalid(f"A key for webhooks must be {prefix} followed by base64.") from error


def read_private_key(text: str) -> bytes:
    """Return the 32 bytes of a `whsk_...`; raises Invalid, without the key."""
    raw = read_key(PRIVATE, text)
    if len(raw) not in (_KEY_BYTES, 2 * _KEY_BYTES):
        raise Invalid(f"A private key for webhooks must have {_KEY_BYTES} bytes.")
    return raw[:_KEY_BYTES]
