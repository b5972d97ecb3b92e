"""Filters: which messages a subscriber wants.

A filter is written in the dialects of the CloudEvents Subscriptions draft (0.1-wip, 3.2.4):

    {"exact": {"type": "t", "/data/kind": 5}}    every field has the value
    {"prefix": {"type": "com.example."}}         every field is a string that begins so
    {"suffix": {"subject": ".png"}}              every field is a string that ends so
    {"all": [filter, ...]}                       every filter matches
    {"any": [filter, ...]}                       one filter matches
    {"not": filter}                              the filter does not match

An array of filters means `all`; it may be empty, and then matches everything. `sql`
is not understood.

A field is the name of an event's attribute, lower-case letters and digits; or, where
it begins with a slash, a JSON pointer (RFC 6901) into the message body. `type` and
`/type` are one field, since an event is kept in its structured form; so the names do
for the members of bodies that are no events, too. There are no dotted paths: names
with dots are common in bodies (`nova_object.data`), and one of the two would be wrong.

Beyond the draft, `exact` compares numbers, booleans and null, each with its like alone:
1 is 1.0, but neither "1" nor true. A field that is not there has no value: `exact`,
`prefix` and `suffix` do not match it, whatever they ask for; `not` turns that round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from queues.errors import Invalid
from queues.models import Json

MAX_FILTER_DEPTH = 10  # levels of all, any and not around a comparison, itself included
MAX_CLAUSES = 100  # filters and compared fields of one filter, taken together
MAX_POINTER_TOKENS = 100  # names in one JSON pointer: deeper than that no body is nested

Scalar: TypeAlias = str | int | float | bool | None

_ATTRIBUTE = re.compile(r"[a-z0-9]+").fullmatch
_BAD_TILDE = re.compile(r"~(?![01])").search
_INDEX = re.compile(r"0|[1-9][0-9]{0,18}").fullmatch
_MISSING: Final = object()  # is equal to no value


class Filter(Protocol):
    """Tells which messages are wanted."""

    def matches(self, body: Json) -> bool:
        """Tell whether a message is wanted, by its parsed body; any JSON value will do."""


@dataclass(frozen=True, slots=True)
class Exact:
    """A field has a value."""

    path: tuple[str, ...]  # names from the top of the body, not escaped
    value: Scalar  # compared by type

    def matches(self, body: Json) -> bool:
        """Tell whether the field is there and equal."""
        found = _find(body, self.path)
        return _kind(found) is _kind(self.value) and bool(found == self.value)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A field is a string with a beginning."""

    path: tuple[str, ...]  # names from the top of the body, not escaped
    value: str  # not empty

    def matches(self, body: Json) -> bool:
        """Tell whether the field is a string that begins so."""
        found = _find(body, self.path)
        return isinstance(found, str) and found.startswith(self.value)


@dataclass(frozen=True, slots=True)
class Suffix:
    """A field is a string with an end."""

    path: tuple[str, ...]  # names from the top of the body, not escaped
    value: str  # not empty

    def matches(self, body: Json) -> bool:
        """Tell whether the field is a string that ends so."""
        found = _find(body, self.path)
        return isinstance(found, str) and found.endswith(self.value)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every filter matches."""

    filters: tuple[Filter, ...]  # none: everything matches

    def matches(self, body: Json) -> bool:
        """Tell whether every filter matches."""
        return all(part.matches(body) for part in self.filters)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one filter matches."""

    filters: tuple[Filter, ...]

    def matches(self, body: Json) -> bool:
        """Tell whether some filter matches."""
        return any(part.matches(body) for part in self.filters)


@dataclass(frozen=True, slots=True)
class Not:
    """A filter does not match."""

    filter: Filter

    def matches(self, body: Json) -> bool:
        """Tell whether the filter does not match."""
        return not self.filter.matches(body)


def parse(document: Json) -> Filter:
    """Return the filter that a JSON document describes: an object, or an array of them.

    Raises Invalid, naming the place as a JSON pointer into the document, for a dialect that
    is not known, a field that is no name and no pointer, a value that cannot be compared,
    and for more than `MAX_FILTER_DEPTH` levels or `MAX_CLAUSES` filters and fields.
    """
    reading = _Reading()
    if isinstance(document, list):
        return AllOf(reading.filters(document, "", 1))
    return reading.filter(document, "", 1)


class _Reading:
    """The reading of one document, which counts what it meets."""

    def __init__(self) -> None:
        self._clauses = 0

    def filters(self, documents: list[Json], place: str, depth: int) -> tuple[Filter, ...]:
        return tuple(
            self.filter(document, f"{place}/{index}", depth) for index, document in enumerate(documents)
        )

    def filter(self, document: Json, place: str, depth: int) -> Filter:
        self._count(place)
        if depth > MAX_FILTER_DEPTH:
            raise _refusal(place, f"filters nest at most {MAX_FILTER_DEPTH} levels deep")
        if not isinstance(document, dict) or len(document) != 1:
            raise _refusal(place, "a filter is an object with one member, which names its dialect")
        ((dialect, operand),) = document.items()
        place = f"{place}/{_escape(dialect)}"
        if dialect in _COMPARISONS:
            return self._comparisons(dialect, operand, place)
        if dialect in ("all", "any"):
            if not isinstance(operand, list) or not operand:
                raise _refusal(place, "there must be an array of at least one filter")
            parts = self.filters(operand, place, depth + 1)
            return AllOf(parts) if dialect == "all" else AnyOf(parts)
        if dialect == "not":
            return Not(self.filter(operand, place, depth + 1))
        raise _refusal(place, "the dialects are exact, prefix, suffix, all, any and not")

    def _comparisons(self, dialect: str, operand: Json, place: str) -> Filter:
        if not isinstance(operand, dict) or not operand:
            raise _refusal(place, "there must be an object of at least one field and its value")
        compare, check = _COMPARISONS[dialect]
        parts: list[Filter] = []
        for field, value in operand.items():
            where = f"{place}/{_escape(field)}"
            self._count(where)
            check(value, where)
            parts.append(compare(_path(field, where), value))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _count(self, place: str) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise _refusal(place, f"there are at most {MAX_CLAUSES} filters and fields")


def _check_scalar(value: Json, place: str) -> None:
    if value == "" or isinstance(value, list | dict):
        raise _refusal(place, "the value must be a string that is not empty, a number, a boolean or null")


def _check_text(value: Json, place: str) -> None:
    if not value or not isinstance(value, str):
        raise _refusal(place, "the value must be a string that is not empty")


_COMPARISONS: Mapping[str, tuple[Callable[[tuple[str, ...], Json], Filter], Callable[[Json, str], None]]] = {
    "exact": (Exact, _check_scalar),
    "prefix": (Prefix, _check_text),
    "suffix": (Suffix, _check_text),
}


def _path(field: str, place: str) -> tuple[str, ...]:
    """Return the names that lead to a field from the top of a body."""
    if _ATTRIBUTE(field):
        return (field,)
    if not field.startswith("/") or _BAD_TILDE(field):
        raise _refusal(
            place,
            "a field is the name of an attribute, lower-case letters and digits,"
            " or a JSON pointer such as /data/kind",
        )
    tokens = field[1:].split("/")
    if len(tokens) > MAX_POINTER_TOKENS:
        raise _refusal(place, f"a JSON pointer has at most {MAX_POINTER_TOKENS} names")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def _find(body: Json, path: tuple[str, ...]) -> Json:
    """Return the field at a path, or `_MISSING`."""
    value = body
    for name in path:
        if isinstance(value, dict):
            value = value.get(name, _MISSING)
        elif isinstance(value, list) and _INDEX(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def _kind(value: Json) -> type:
    """Return what stands for the JSON type of a value: 1 and 1.0 are of one, 1 and true are not."""
    return float if type(value) is int else type(value)


def _refusal(place: str, reason: str) -> Invalid:
    shown = place if len(place) <= 200 else f"{place[:200]}..."
    return Invalid(f"The filter is not acceptable at {shown or 'its top'}: {reason}.")


def _escape(name: str) -> str:
    """Write a name of the document as a token of a JSON pointer, in visible ASCII."""
    return ascii(name)[1:-1].replace("~", "~0").replace("/", "~1")
