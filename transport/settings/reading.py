"""Finds the values: flags over the environment over one file over the defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from queues.redaction import hide_password
from transport.settings.advice import SettingsError
from transport.settings.checks import nearest
from transport.settings.keys import KEYS, SECTIONS, Key, Kind
from transport.settings.model import Settings

#: Read if nobody names a file: the first that exists.
PLACES = (Path("hermod.toml"), Path("/etc/hermod/hermod.toml"))

_PREFIX = "HERMOD_"
_FILE_VARIABLE = "HERMOD_CONFIG"
_TEST_PREFIX = "HERMOD_TEST_"

# Kubernetes puts the addresses of every Service of the namespace into the environment of every container:
# a Service called hermod, or hermod-api, must not keep Hermod from starting.
_KUBERNETES_NAME = re.compile(
    r"HERMOD(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
).fullmatch
_KUBERNETES_PORT = re.compile(r"HERMOD(_\w+)?_PORT=(tcp|udp|sctp)://.*").fullmatch

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """Settings, and where they come from."""

    settings: Settings  # complete and valid
    sources: Mapping[str, str]  # dotted key -> "default", "file PATH", "environment NAME" or "flag --NAME"
    file: Path | None  # absolute path of the file that was read
    inherited: Mapping[str, str]  # the environment that they were read in

    def environ(self) -> dict[str, str]:
        """Return the environment in which a child process loads the same."""
        flags = [KEYS[name] for name, source in self.sources.items() if source.startswith("flag ")]
        # The values of flags are plain; in the environment, a switch is a word in small letters.
        texts = {key.environ: str(key.value(self.settings)) for key in flags}
        switches = {key.environ for key in flags if key.kind is Kind.SWITCH}
        found = {name: text.lower() if name in switches else text for name, text in texts.items()}
        return {**self.inherited, **found, **({_FILE_VARIABLE: str(self.file)} if self.file else {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """A value, as somebody wrote it."""

    value: object
    source: str  # as in Loaded


class _Finder:
    """Collects values and what is wrong with them."""

    def __init__(self) -> None:
        self.found: dict[str, _Found] = {}  # dotted key -> the value that counts
        self.problems: list[str] = []

    def file(self, path: Path) -> None:
        """Take the values of a TOML file."""
        source = f"file {path}"
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            self.problems.append(f"{source}: cannot be read: {error.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            self.problems.append(f"{source}: is not TOML: {error}")
        else:
            for name, value in _leaves(document):
                self._take(name, value, source)

    def environ(self, environ: Mapping[str, str]) -> None:
        """Take the values of the environment."""
        known = {key.environ: key for key in KEYS.values()}
        for variable, text in sorted(environ.items()):
            if variable in known:
                self._text(known[variable], text, f"environment {variable}")
            elif variable.startswith(_PREFIX) and not _is_foreign(variable, text):
                self.problems.append(
                    f"environment {variable}: there is no such setting;"
                    f" the nearest known one is {nearest(variable, known)}"
                )

    def flags(self, flags: Mapping[str, object]) -> None:
        """Take the values of flags; None is a flag that was not given."""
        for name, value in flags.items():
            if value is not None:
                self._take(name, value, f"flag {_flag(name)}")

    def settings(self) -> Settings | None:
        """Make settings of what was found; None, and more problems, if they are not valid."""
        document: dict[str, Any] = {}
        for name, found in self.found.items():
            section, _, last = name.rpartition(".")
            (document.setdefault(section, {}) if section else document)[last] = found.value
        try:
            return Settings.model_validate(document)
        except ValidationError as error:
            self.problems.extend(self._describe(error))
        return None

    def _take(self, name: str, value: object, source: str) -> None:
        key = KEYS.get(name)
        if key is None and name in SECTIONS:
            self.problems.append(f"{source}: {name} is a section, not a setting")
        elif key is None:
            self.problems.append(
                f"{source}: there is no setting {name}; the nearest known one is {nearest(name, KEYS)}"
            )
        elif key.kind is Kind.NUMBER and isinstance(value, bool):  # pydantic would make it 0 or 1
            self.problems.append(f"{source}: {name} should be a number")
        else:
            self.found[name] = _Found(value=value, source=source)

    def _text(self, key: Key, text: str, source: str) -> None:
        """Take a value as the environment writes it."""
        if key.kind not in (Kind.LIST, Kind.TABLE):
            self._take(key.name, text, source)
            return
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if key.kind is Kind.LIST:
            self._take(key.name, parts, source)
        elif not all("=" in part for part in parts):
            self.problems.append(f"{source}: {key.name} should be name=value, separated by commas")
        else:
            self._take(key.name, dict(part.split("=", 1) for part in parts), source)

    def _describe(self, error: ValidationError) -> Iterator[str]:
        """Say what is wrong in one line each, with where it was written and without a secret."""
        for fault in error.errors(include_url=False):
            place = [str(step) for step in fault["loc"]]
            name = next((".".join(place[:n]) for n in (2, 1) if ".".join(place[:n]) in KEYS), None)
            message = _plain(fault["msg"])
            if name is None:  # it is about several settings, which the message names
                yield f"{'.'.join(place) or 'settings'}: {message}"
            else:
                shown = "" if KEYS[name].secret else _shown(fault["input"])
                yield f"{self.found[name].source}: {name} {message}{shown}"


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] = _NOTHING,
) -> Loaded:
    """Read the settings, from the file, over it the environment, over it the flags.

    `flags` maps dotted keys to values; None stands for a flag that was not given.
    Without `file` it is the one that HERMOD_CONFIG names, or else the first of
    `PLACES` that exists. Raises SettingsError with a line for each problem.
    """
    finder = _Finder()
    path = file or _file_of(environ)
    if path is not None:
        path = path.absolute()
        finder.file(path)
    finder.environ(environ)
    finder.flags(flags)
    settings = finder.settings()
    if finder.problems or settings is None:
        raise SettingsError("\n".join(finder.problems))
    sources = {name: finder.found[name].source if name in finder.found else "default" for name in KEYS}
    return Loaded(settings=settings, sources=sources, file=path, inherited=environ)


def _file_of(environ: Mapping[str, str]) -> Path | None:
    if environ.get(_FILE_VARIABLE):
        return Path(environ[_FILE_VARIABLE])
    return next((place for place in PLACES if place.exists()), None)


def _leaves(document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield dotted keys and values; a table that is no section is a value."""
    for name, value in document.items():
        if isinstance(value, dict) and name not in KEYS and (value or name in SECTIONS):
            yield from ((f"{name}.{inner}", inner_value) for inner, inner_value in value.items())
        else:
            yield name, value


def _plain(message: str) -> str:
    """Turn pydantic's message into the rest of a sentence."""
    text = message.removeprefix("Value error, ").removeprefix("Input ").replace("tuple", "list")
    return text.partition(", unable")[0]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f", not {hide_password(value)!r}"
    return f", not {value}" if isinstance(value, int | float) else ""


def _is_foreign(variable: str, text: str) -> bool:
    return (
        variable == _FILE_VARIABLE
        or variable.startswith(_TEST_PREFIX)
        or _KUBERNETES_NAME(variable) is not None
        or _KUBERNETES_PORT(f"{variable}={text}") is not None
    )


def _flag(name: str) -> str:
    return "--" + name.rpartition(".")[2].replace("_", "-")
