"""Every setting by its dotted key, read off the model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum, auto
from types import MappingProxyType
from typing import get_args, get_origin

from pydantic import BaseModel, SecretStr

from queues.limits import Limits
from transport.settings.model import LIMITS, Settings


class Kind(Enum):
    """How a value is written."""

    TEXT = auto()
    NUMBER = auto()
    SWITCH = auto()
    LIST = auto()  # comma-separated in the environment
    TABLE = auto()  # name=value, comma-separated, in the environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One setting."""

    name: str  # dotted: "api.bind"
    kind: Kind  # how its value is written
    default: object  # as the model has it
    description: str  # plain text, ends with a full stop
    secret: bool = False  # whether its value is never shown

    @property
    def section(self) -> str:
        """The part in front of the dot, "" at the top level."""
        return self.name.rpartition(".")[0]

    @property
    def environ(self) -> str:
        """Its name in the environment."""
        return "HERMOD_" + self.name.upper().replace(".", "_")

    def value(self, settings: Settings) -> object:
        """Its value in some settings."""
        found: object = settings
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


_KINDS: dict[object, Kind] = {
    bool: Kind.SWITCH,
    int: Kind.NUMBER,
    float: Kind.NUMBER,
    tuple: Kind.LIST,
    dict: Kind.TABLE,
}


def _kind(annotation: object) -> Kind:
    return _KINDS.get(get_origin(annotation) or annotation, Kind.TEXT)


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if field.annotation is Limits:
            for limit in fields(Limits):
                yield Key(
                    name=f"{name}.{limit.name}",
                    kind=Kind.NUMBER,
                    default=limit.default,
                    description=LIMITS[limit.name],
                )
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{name}.")
        else:
            yield Key(
                name=prefix + name,
                kind=_kind(field.annotation),
                default=field.default,
                description=field.description or "",
                secret=_is_secret(field.annotation),
            )


def _section_notes() -> Iterator[tuple[str, str]]:
    for name, field in Settings.model_fields.items():
        if field.annotation is Limits:
            yield name, "Bounds and defaults of what clients ask for."
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, inspect.cleandoc(field.annotation.__doc__ or "")


#: Every setting by its dotted key, in the order of the model.
KEYS = MappingProxyType({key.name: key for key in _keys(Settings)})

#: What each section is about, by its name.
SECTIONS = MappingProxyType(dict(_section_notes()))
