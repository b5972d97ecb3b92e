"""Reads files of named SQL statements."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*$", re.MULTILINE)


def load(path: str) -> dict[str, str]:
    """Return statement by name from a file below `storage/sql`.

    A statement begins behind a line `-- name: NAME` and ends at the next one;
    comment lines are dropped.
    """
    text = files("storage").joinpath("sql", path).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: _COMMENT.sub("", body).strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
