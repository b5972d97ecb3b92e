"""What the operations take, one type each.

The types are the schemas: `msgspec` checks a document against them while it parses
it, once, in either encoding, and `schema_of` states them as JSON Schema. A member
typed `T | None` may be null, which means absent; one that may be UNSET may only be
absent. Members that are not named are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec


def schema_of(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an operation's arguments."""
    return msgspec.json.schema(arguments)
