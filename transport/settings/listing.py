"""Shows settings: as a table of what is in force, as a default file, as the reference."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby

from pydantic import SecretStr

from queues.models import Role
from queues.redaction import hide_password
from transport.settings.keys import KEYS, SECTIONS, Key
from transport.settings.model import Settings

_HEADING = """\
# Settings

Settings come from four places. Each one overrides those before it:

1. the defaults below,
2. one TOML file: the one that the flag `--config` names, else the one that the variable `HERMOD_CONFIG` names, else
   `hermod.toml` in the working directory, else `/etc/hermod/hermod.toml`,
3. environment variables,
4. flags of the command line ([cli.md](cli.md)).

`hermod config` prints every setting that is in force and where it comes from; `hermod config --toml` prints a file with
all defaults to start from. A name that does not exist is an error, in the file and in the environment, and Hermod does
not start.

In the file, `api.bind` is the key `bind` in the table `[api]`. In the environment, lists are written with commas between
the entries, tables as `name=value` with commas in between, and switches as `true` or `false`.

Variables that begin with `HERMOD_TEST_` belong to the test suite. Kubernetes announces each Service of a namespace to
every container in variables such as `HERMOD_SERVICE_HOST`, `HERMOD_PORT` (an address such as `tcp://10.0.0.1:8888`) and
`HERMOD_PORT_8888_TCP`; those of Services called `hermod` or `hermod-...` are ignored.

This page is made from the descriptions in `transport/settings/model.py`:
`.venv/bin/python -m transport.settings > docs/reference/settings.md`.
"""


def literal(value: object) -> str:
    """Write a value as TOML; secrets are not shown."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, SecretStr):
        return '"***"' if value.get_secret_value() else '""'
    if isinstance(value, Role):
        return f'"{value.name.lower()}"'
    if isinstance(value, Mapping):
        entries = ", ".join(f"{literal(name)} = {literal(entry)}" for name, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(literal, value))}]"
    return json.dumps(hide_password(value), ensure_ascii=False) if isinstance(value, str) else str(value)


def effective(settings: Settings, sources: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each setting: its key and value, and where the value comes from."""
    shown = {key.name: f"{key.name} = {literal(key.value(settings))}" for key in KEYS.values()}
    width = min(max(map(len, shown.values())), 60)
    for name, text in shown.items():
        yield f"{text:<{width}}  # {sources[name]}"


def default_file() -> Iterator[str]:
    """Yield the lines of a TOML file with every setting, its description and its default, commented out."""
    yield "# Settings of Hermod. The values below are the defaults: remove the # of those you change."
    for section, keys in _by_section():
        yield ""
        if section:
            yield f"[{section}]  # {SECTIONS[section]}"
        for key in keys:
            yield from textwrap.wrap(key.description, 110, initial_indent="# ", subsequent_indent="# ")
            yield f"#{key.name.rpartition('.')[2]} = {literal(key.default)}"


def reference() -> Iterator[str]:
    """Yield the lines of docs/reference/settings.md."""
    yield _HEADING
    for section, keys in _by_section():
        yield f"## [{section}]" if section else "## Top level"
        yield ""
        if section:
            yield SECTIONS[section]
            yield ""
        yield "| Key | Environment | Default | Meaning |"
        yield "|---|---|---|---|"
        for key in keys:
            yield f"| `{key.name}` | `{key.environ}` | `{literal(key.default)}` | {key.description} |"
        yield ""


def _by_section() -> Iterator[tuple[str, list[Key]]]:
    """Group the keys; the top level comes first, as TOML wants it."""
    ordered = sorted(KEYS.values(), key=lambda key: key.section != "")
    for section, keys in groupby(ordered, key=lambda key: key.section):
        yield section, list(keys)
