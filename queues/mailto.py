"""Mail addresses in the one form that this service writes to."""

from __future__ import annotations

import re

LONGEST_ADDRESS = 254  # characters; RFC 5321, 4.5.3.1.3, without the angle brackets

_ATOM = r"[A-Za-z0-9!#$%&'*+=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"{_ATOM}(\.{_ATOM})*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


def is_address(text: str) -> bool:
    """Whether a text is a mail address in its plain form: no quotes, no comments, ASCII."""
    return len(text) <= LONGEST_ADDRESS and _ADDRESS.fullmatch(text) is not None
