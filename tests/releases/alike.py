"""When two releases say the same: but for ids, moments and keys, which are drawn, and for what is new.

A release may add members to objects and headers to requests, which clients do not look at. What was there stays, with the
same value, and a list has the entries that it had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_ID = re.compile(
    r"msg_[0-9a-f]+|(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{24}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-f])"
)

#: What is drawn, or told by a clock, in texts.
_VOLATILE = (
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z?"), "<moment>"),
    (re.compile(r"hmd_[0-9a-f]{16}_[\w-]+"), "<token>"),
    (re.compile(r"whsec_[\w+/=]+"), "whsec_<key>"),
    (re.compile(r"\b(v1a?),[\w+/]+=*"), r"\1,<signature>"),
    (re.compile(r"\bhermod/[0-9][\w.]*"), "hermod/<version>"),
    (re.compile(r"(http://127\.0\.0\.1):[0-9]+/"), r"\1:<port>/"),
)

#: What a clock tells in whole seconds, and what depends on it, by the name of the member.
_SECONDS: dict[str, type[int | str]] = {"age": int, "webhook-timestamp": str}


def comparable(recorded: Any) -> Any:
    """Return what was recorded with marks in place of what is not the same twice; ids are numbered as they come."""
    numbers: dict[str, str] = {}
    return _marked(recorded, numbers)


def _marked(value: Any, numbers: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _member(name, each, numbers) for name, each in value.items()}
    if isinstance(value, list):
        return [_marked(each, numbers) for each in value]
    if not isinstance(value, str):
        return value
    if value[:1] == "{":  # the body of a webhook
        return _marked(json.loads(value), numbers)
    for pattern, mark in _VOLATILE:
        value = pattern.sub(mark, value)
    return _ID.sub(lambda found: numbers.setdefault(found[0], f"#{len(numbers)}"), value)


def _member(name: str, value: Any, numbers: dict[str, str]) -> Any:
    kind = _SECONDS.get(name)
    if kind is None:
        return _marked(value, numbers)
    assert isinstance(value, kind), (name, value)
    assert int(value) >= 0, (name, value)
    return "<seconds>"


def differences(new: Any, old: Any, where: str = "") -> Iterator[str]:
    """Yield where something is missing that the older release said, or is something else."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new:
                yield from differences(new[name], value, f"{where}/{name}")
            else:
                yield f"{where}/{name} is missing, which was {value!r}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (mine, theirs) in enumerate(zip(new, old, strict=True)):
            yield from differences(mine, theirs, f"{where}/{number}")
    elif type(new) is not type(old) or new != old:
        yield f"{where} is {new!r}, and was {old!r}"
