"""The URI of a SQLite store: `sqlite:///relative/path` or `sqlite:////absolute/path`.

A query may follow: `quick_check` is the size in MiB up to which every page of the file is read when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from queues.errors import StoreUnsupported
from storage.sqlite_file import QUICK_CHECK

_MOST = 2**40  # MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What a URI says."""

    path: Path
    quick_check: int  # MiB


def parse(uri: str) -> Named:
    """Read a URI. Raises StoreUnsupported for one that is wrong."""
    scheme, _, rest = uri.partition(":///")
    path, _, query = rest.partition("?")
    if scheme != "sqlite" or not path:
        raise StoreUnsupported(f"A SQLite store is named by sqlite:///path, not {uri!r}.")
    options = dict(parse_qsl(query, keep_blank_values=True))
    mib = options.pop("quick_check", str(QUICK_CHECK))
    if options or not (mib.isascii() and mib.isdigit() and int(mib) <= _MOST):
        raise StoreUnsupported(
            f"The one option of a SQLite store is quick_check, a number of MiB, as in sqlite:///path?quick_check=64;"
            f" {query!r} is wrong."
        )
    return Named(path=Path(path), quick_check=int(mib))


def is_sqlite(uri: str) -> bool:
    """Tell whether a URI names a SQLite store."""
    return uri.startswith("sqlite:")
