"""Headers that a subscription adds to its webhooks, as far as they are its business."""

from __future__ import annotations

import re

from notifiers.outcome import Undeliverable
from queues.models import Json

MOST_HEADERS = 50
LONGEST_VALUE = 8000  # characters

#: What the transport of HTTP, or this service, decides alone (RFC 9110 7.6.1, RFC 9112).
_RESERVED = frozenset(
    {
        *("host", "content-length", "content-encoding", "transfer-encoding", "expect", "accept-encoding"),
        *("connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings"),
    }
)
_RESERVED_PREFIXES = ("webhook-", "ce-", "proxy-")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t -~]*")


def checked_headers(wanted: Json) -> dict[str, str]:
    """Return what may be sent of `options.post_headers`; reserved headers are left out.

    Raises Undeliverable for what could not be sent as it is: no object of strings, line breaks,
    characters outside of ASCII.
    """
    if not wanted:
        return {}
    if not isinstance(wanted, dict) or len(wanted) > MOST_HEADERS:
        raise Undeliverable(f"The option post_headers must be an object of at most {MOST_HEADERS} headers.")
    return {name: _checked(name, value) for name, value in wanted.items() if not _is_reserved(name)}


def _checked(name: str, value: Json) -> str:
    if not _NAME.fullmatch(name):
        raise Undeliverable("A name in the option post_headers is none that a header can have.")
    if not isinstance(value, str) or len(value) > LONGEST_VALUE or not _VALUE.fullmatch(value):
        raise Undeliverable(f"The value of {name} in the option post_headers must be ASCII text on one line.")
    return value


def _is_reserved(name: str) -> bool:
    lower = name.strip().lower()
    return lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES)
