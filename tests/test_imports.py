"""The import law of ARCHITECTURE.md, read from the syntax trees."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("queues", "storage", "transport", "notifiers")
MAY_IMPORT = {
    "queues": {"queues"},
    "storage": {"storage", "queues"},
    "notifiers": {"notifiers", "queues"},
    "transport": {"transport", "queues"},
}
COMPOSITION_ROOT = "transport.wiring"
READS_ENVIRONMENT = ("transport.settings.", "queues.crashes.")  # the latter for tests alone
DRAWERS = {"common", "helper", "helpers", "misc", "util", "utils"}

Modules = Mapping[str, ast.Module]  # dotted name -> syntax tree


def read_modules() -> Modules:
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {name_of(file): ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """What is imported anywhere, also within functions and for type checks only: (module, name or None)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            yield from ((node.module or "", alias.name) for alias in node.names)


def strangers(modules: Modules) -> list[str]:
    """Imports of our packages that the law does not allow."""
    return [
        f"{module} imports {imported}"
        for module, tree in modules.items()
        if module != COMPOSITION_ROOT
        for imported, _ in imports(tree)
        if (package := imported.partition(".")[0]) in PACKAGES
        and package not in MAY_IMPORT[module.partition(".")[0]]
    ]


def environment_readers(modules: Modules) -> list[str]:
    return [
        module
        for module, tree in modules.items()
        if not f"{module}.".startswith(READS_ENVIRONMENT) and reads_environment(tree)
    ]


def reads_environment(tree: ast.Module) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    imported = {name for module, name in imports(tree) if module == "os"}
    return bool(names & (attributes | imported))


def drawers(modules: Iterable[str]) -> list[str]:
    return [module for module in modules if DRAWERS.intersection(module.split("."))]


def cycle(modules: Modules) -> list[str]:
    """Modules that import each other in a ring; empty if there is none."""
    edges = {module: set(edges_of(tree, modules)) - {module} for module, tree in modules.items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def edges_of(tree: ast.Module, modules: Modules) -> Iterator[str]:
    for module, name in imports(tree):
        inner = f"{module}.{name}"
        if inner in modules:
            yield inner
        elif module in modules:
            yield module


MODULES = read_modules()


def test_all_packages_are_read():
    assert {module.partition(".")[0] for module in MODULES} >= {"queues", "storage", "transport"}
    assert COMPOSITION_ROOT in MODULES


def test_packages_import_queues_and_themselves_only():
    assert strangers(MODULES) == []


def test_only_the_settings_read_the_environment():
    assert environment_readers(MODULES) == []


def test_there_is_no_drawer_for_odds_and_ends():
    assert drawers(MODULES) == []


def test_no_modules_import_each_other():
    assert cycle(MODULES) == []


# The checks themselves, on programs that break the law.


def program(**sources: str) -> Modules:
    return {name.replace("__", "."): ast.parse(source) for name, source in sources.items()}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("queues__models", "import storage.memory"),
        ("queues__models", "from transport import problems"),
        ("queues__models", "def f():\n    from notifiers.webhook import deliver"),
        ("queues__models", "if TYPE_CHECKING:\n    from storage.memory import connect"),
        ("storage__memory", "import transport"),
        ("storage__memory", "from notifiers.mail import deliver"),
        ("notifiers__mail", "from storage import memory"),
        ("notifiers__mail", "from transport.settings import Settings"),
        ("transport__cli", "from storage.registry import connect"),
        ("transport__wsgi__wiring", "from storage.registry import connect"),
        ("transport__cli", "import queues, notifiers.worker"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    assert len(strangers(program(**{module: source}))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("queues__models", "import json\nfrom queues.errors import Invalid"),
        ("storage__memory", "from queues.ports import Driver\nfrom storage import registry"),
        ("transport__wiring", "import queues, storage, notifiers, transport"),
        ("transport__cli", "import storage_tools"),
    ],
)
def test_an_allowed_import_is_none(module, source):
    assert strangers(program(**{module: source})) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "from os import getenv",
    ],
)
def test_a_reader_of_the_environment_is_found(source):
    found = program(storage__memory=source, transport__settings=source, transport__settings__reading=source)
    assert environment_readers(found) == ["storage.memory"]
    assert environment_readers(program(transport__settings2=source)) == ["transport.settings2"]


def test_a_drawer_is_found():
    names = ["queues.utils", "storage.common.sql", "transport.wsgi.helpers", "queues.commonplace"]
    assert drawers(names) == names[:3]


def test_a_ring_is_found():
    ring = program(
        queues__a="from queues import b", queues__b="import queues.c", queues__c="from queues.a import f"
    )
    assert set(cycle(ring)) == {"queues.a", "queues.b", "queues.c"}
    assert (
        cycle(program(queues__a="from queues import b", queues__b="", queues="from queues.a import f")) == []
    )
