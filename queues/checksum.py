"""The checksum of a message body, as the Zaqar v2 protocol defines it."""

from __future__ import annotations

import hashlib
import json


def checksum(body: bytes) -> str | None:
    """Return `MD5:` and the hex digest of a JSON body; None for a null.

    The digest is of the text that Python's json module writes by default: blanks
    behind commas and colons, everything outside ASCII escaped, keys as received.
    """
    value = json.loads(body)
    if value is None:
        return None
    digest = hashlib.md5(json.dumps(value).encode("ascii"), usedforsecurity=False)
    return f"MD5:{digest.hexdigest()}"
