"""JSON as it comes in: strict, bounded, and parsed once."""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from queues.limits import MAX_DEPTH, MAX_INTEGER
from transport.problems import MalformedBody

T = TypeVar("T")

# What only a closer look can judge: a long number may be an integer beyond 64 bits, and the escape of
# half a surrogate pair may be alone. Before each is searched for, something is that is found faster.
_LONG_NUMBER = re.compile(rb"(?:\A|[\s:,\[-])\d{19}")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_LONG_DIGITS = b"0" * 19
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.?)*+"?|[\[\]{}]', re.DOTALL)


def decode(raw: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Parse a document into the decoder's type.

    Raises MalformedBody for what is no JSON, has the wrong shape, is nested too
    deep, holds an integer outside 64 bits, or text that is no Unicode.
    """
    check(raw)
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise MalformedBody(f"The request body has the wrong shape: {error}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody(f"The request body could not be parsed: {error}.") from error


def check(raw: bytes) -> None:
    """Raise MalformedBody for what a parser that keeps values as raw text lets pass."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody("The request body could not be parsed: it is not UTF-8.") from error
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and depth(raw) > MAX_DEPTH:
        raise MalformedBody(f"The request body is nested deeper than {MAX_DEPTH} levels.")
    if _is_suspect(raw):
        _look_closer(raw)


def depth(raw: bytes) -> int:
    """Return how deep the brackets of a document are nested."""
    level = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(raw):
        if match[0] in (b"[", b"{"):
            level += 1
            deepest = max(deepest, level)
        elif match[0] in (b"]", b"}"):
            level -= 1
    return deepest


def _is_suspect(raw: bytes) -> bool:
    if _LONG_DIGITS in raw.translate(_DIGITS) and _LONG_NUMBER.search(raw):
        return True
    return b"\\u" in raw and _HALF_PAIR.search(raw) is not None


def _look_closer(raw: bytes) -> None:
    try:
        value = json.loads(raw, parse_int=_integer)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedBody("The request body has an escape of half a surrogate pair.") from error
    except ValueError as error:
        raise MalformedBody(f"The request body could not be parsed: {error}.") from error


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -MAX_INTEGER - 1 <= int(digits) <= MAX_INTEGER:
        raise MalformedBody("The request body has an integer outside the signed 64-bit range.")
    return int(digits)
