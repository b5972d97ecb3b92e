"""Every grave quirk of the protocol's first implementation has a test that carries its number."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent

#: The quirks by which data are lost, secrets told, or answers wrong: security, Redis, MongoDB, pools, fan-out,
#: websockets.
GRAVE = {
    *(f"a{number}" for number in range(1, 14)),
    *(f"b{number}" for number in (*range(1, 13), 14, 15, 17)),
    *(f"c{number}" for number in (*range(1, 8), 10, 11, 12)),
    *(f"d{number}" for number in range(1, 9)),
    *(f"e{number}" for number in range(1, 14)),
    *(f"g{number}" for number in range(1, 9)),
}

#: Quirks that cannot be had yet, or never, and why. A line goes when what it waits for is there.
ABSENT = {
    "d7": "there is no driver for Swift",
}

#: Where a test runs over every store: its folder or file, and what it asks for there.
OVER_EVERY_STORE = {
    "storage": {"queue", "driver", "uri", "records"},
    "transport/test_rest_": {"api", "open_api", "three"},
}

_NUMBERS = re.compile(r"test((?:_[a-k]\d+)+)(?:_|$)")


@cache
def _tests() -> list[tuple[str, str, set[str]]]:
    """Return the file and the arguments of each test that carries a number, once for each of its numbers."""
    return list(_find())


def _find() -> Iterator[tuple[str, str, set[str]]]:
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (found := _NUMBERS.match(node.name)):
                arguments = {argument.arg for argument in node.args.args}
                for number in found[1].strip("_").split("_"):
                    yield number, path.relative_to(TESTS).as_posix(), arguments


def test_every_grave_quirk_has_a_test() -> None:
    tested = {number for number, _, _ in _tests()}

    assert set(ABSENT) <= GRAVE
    assert sorted(GRAVE - tested - set(ABSENT)) == [], "no test carries these numbers"


def test_quirks_of_stores_are_tested_over_every_store() -> None:
    over_every: dict[str, bool] = defaultdict(bool)
    for number, path, arguments in _tests():
        over_every[number] |= any(
            path.startswith(place) and bool(arguments & wanted) for place, wanted in OVER_EVERY_STORE.items()
        )
    of_stores = {"a3", "a4", "a13", *(number for number in GRAVE if number[0] in "bc"), "d8"}

    assert sorted(number for number in of_stores - set(ABSENT) if not over_every[number]) == []
