"""Keeping passwords out of what is shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"  # stands for a password where a URI is shown

# A password that nobody percent-encoded can contain anything, so everything up to
# the last at sign goes: rather too much than too little.
_PASSWORD = re.compile(r"(?<=://)([^:@/]*):(.*)@", re.DOTALL)


def hide_password(uri: str) -> str:
    """Return the URI with a password in front of its host replaced by asterisks."""
    return _PASSWORD.sub(rf"\1:{HIDDEN}@", uri)


def password_of(uri: str) -> str | None:
    """Return the password as it stands in a URI, or None."""
    found = _PASSWORD.search(uri)
    return found[2] if found and found[2] else None


def without_password(text: str, uri: str) -> str:
    """Return a text, such as an error's, without the password of a URI."""
    password = password_of(uri)
    for secret in (password, unquote(password)) if password else ():
        text = text.replace(secret, HIDDEN)
    return text
