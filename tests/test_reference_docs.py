"""The reference has everything that there is, and nothing else; and what the pages point at is there."""

import inspect
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

import queues
from queues import errors
from queues.errors import HermodError, Untold
from queues.limits import Limits
from queues.metadata import RETRY_DEFAULTS, defaults, schema
from transport import problems
from transport.access import RULES
from transport.operations import OPERATIONS
from transport.problems import INTERNAL, problem_of
from transport.websocket import connection
from transport.websocket.actions import actions
from transport.websocket.session import CONNECTION_ACTIONS
from transport.websocket.shapes import PUSHED
from transport.wsgi.routes import ByIds, routes

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("[!.]*/**/*.md"))]

#: Documents that are no operations.
DOCUMENTS = {("GET", "/"), ("GET", "/v2/")}

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (REFERENCE / page).read_text(encoding="utf-8")


def rows(page: str, columns: int) -> list[list[str]]:
    """The rows of all tables with so many columns whose first cell is a name in code."""
    found = (
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text_of(page).splitlines()
        if line.startswith("| `")
    )
    return [cells for cells in found if len(cells) == columns]


def name_of(cell: str) -> str:
    return cell.strip().strip("`")


# --- Operations and access rules


def test_every_operation_is_documented_with_its_rule_and_role():
    documented = [(name_of(name), name_of(rule), role) for name, rule, role, _ in rows("operations.md", 4)]
    there_are = [
        (operation.name, operation.rule, RULES[operation.rule].name.lower())
        for operation in OPERATIONS.values()
        if operation.rule is not None
    ]

    assert len(there_are) == len(OPERATIONS), "an operation without a rule has no place in the table yet"
    assert sorted(documented) == sorted(there_are)


def test_every_access_rule_belongs_to_an_operation_and_so_is_documented():
    documented = {name_of(rule) for _, rule, _, _ in rows("operations.md", 4)}

    assert documented == set(RULES)


# --- Requests


def endpoints() -> Iterator[tuple[str, str, str]]:
    for path, methods in routes(admin=True, pooling=True).items():
        for method, choice in methods.items():
            if isinstance(choice, ByIds):
                yield method, f"{path}?ids=", choice.with_ids.operation.name
                yield method, path, choice.without.operation.name
            else:
                yield method, path, choice.operation.name


def test_every_request_is_documented_with_its_operation():
    documented = re.findall(r"^### ([A-Z]+) (\S+)\n\n(?:`(\w+)`: )?", text_of("rest.md"), re.MULTILINE)

    assert len(documented) == len(set(documented))
    assert {(method, path) for method, path, operation in documented if not operation} == DOCUMENTS
    assert {found for found in documented if found[2]} == set(endpoints())


def test_the_table_of_operations_leads_to_their_requests():
    paths: dict[str, set[str]] = {}
    for method, path, operation in endpoints():
        paths.setdefault(operation, set()).add(slug(f"{method} {path}"))
    for name, _, _, links in rows("operations.md", 4):
        assert {link.partition("#")[2] for link in LINK.findall(links)} == paths[name_of(name)]


# --- Actions of the websocket


ASYNCAPI: dict[str, Any] = json.loads(text_of("asyncapi.json"))
PAYLOADS: dict[str, Any] = {
    name: {"components": ASYNCAPI["components"], "allOf": [message["payload"]]}
    for name, message in ASYNCAPI["components"]["messages"].items()
}
CODE = re.compile(r"`([^`]+)`")


#: The actions that the page has, each with what it says of the body and the answer.
ACTIONS = [
    (name, body, answer) for names, body, answer in rows("websocket.md", 3) for name in CODE.findall(names)
]


def test_every_action_is_documented_once():
    assert sorted(name for name, _, _ in ACTIONS) == sorted(
        (*CONNECTION_ACTIONS, *actions(admin=True, pooling=True))
    )


@pytest.mark.parametrize(("name", "body", "answer"), ACTIONS, ids=[name for name, *_ in ACTIONS])
def test_a_documented_action_has_these_members_and_answers(name, body, answer):
    properties = ASYNCAPI["components"]["messages"][name]["payload"]["properties"]
    schema = ASYNCAPI["components"]["schemas"][properties["body"]["$ref"].rpartition("/")[2]]
    needed, _, optional = re.sub(r"\([^)]*\)|:.*", "", body).partition("optional")
    either = re.findall(r"`(\w+)` or `(\w+)`", needed)

    assert set(CODE.findall(needed)) - {each for pair in either for each in pair} == set(schema["required"])
    assert {*CODE.findall(optional), *(each for pair in either for each in pair)} == (
        set(schema["properties"]) - set(schema["required"])
    )
    said = {int(status) for status in re.findall(r"\b[2-4]\d\d\b", CODE.sub("", answer))}
    assert statuses(name) <= said


def statuses(action: str) -> set[int]:
    """The statuses of what is no refusal of an action."""
    payload = ASYNCAPI["components"]["messages"][f"{action}_reply"]["payload"]
    return {
        status
        for either in payload.get("oneOf", [payload])
        for status in either["allOf"][1]["properties"]["headers"]["properties"]["status"]["enum"]
    }


#: The frames that the page shows.
FRAMES: list[dict[str, Any]] = [
    json.loads(block)
    for block in re.findall(r"^```json\n(.*?)^```$", text_of("websocket.md"), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_that_is_shown_fits_the_asyncapi_document(frame):
    kinds = [
        name
        for name, payload in PAYLOADS.items()
        if Draft7Validator(payload).is_valid(frame) and name != "refusal"
    ]

    action = frame.get("action") or frame.get("request", {}).get("action")
    if action:
        assert kinds == [action if "action" in frame else f"{action}_reply"]
    else:
        assert kinds
        assert set(kinds) <= set(PUSHED)


def test_every_kind_of_frame_that_is_pushed_is_shown():
    shown = {name for frame in FRAMES for name in PUSHED if Draft7Validator(PAYLOADS[name]).is_valid(frame)}

    assert shown == set(PUSHED)


def test_the_close_codes_of_the_websocket_are_documented():
    documented = {
        int(code)
        for codes in re.findall(r"^\| ([\d, ]+) \|", text_of("websocket.md"), re.MULTILINE)
        for code in codes.split(",")
    }
    there_are = {
        value
        for name, value in vars(connection).items()
        if name.isupper() and name[0] != "_" and type(value) is int
    }

    assert there_are <= documented
    assert documented - there_are <= {200, 400, 404, 1002, 1003, 1007, 1009}, (
        "the others are those of RFC 6455"
    )


# --- Errors


def kinds_of_error() -> Iterator[type[HermodError]]:
    for module in (errors, problems):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, HermodError) and kind.__module__ == module.__name__:
                yield kind


def test_every_error_has_a_code_of_its_own():
    codes = [kind.code for kind in kinds_of_error()]

    assert len(codes) == len(set(codes))


def test_every_error_is_documented_with_its_status_and_title():
    documented = {name_of(code): (int(status), title) for code, status, title, _ in rows("errors.md", 4)}
    there_are = {INTERNAL.code: (INTERNAL.status, INTERNAL.title)}
    for kind in kinds_of_error():
        if issubclass(kind, Untold):
            continue  # see its docstring
        problem = problem_of(kind())
        there_are[problem.code] = (problem.status, problem.title)

    assert documented == there_are


# --- Metadata

ATTRIBUTES: dict[str, dict[str, Any]] = schema(Limits())["properties"]
MEMBERS: dict[str, dict[str, Any]] = ATTRIBUTES["_retry_policy"]["properties"]


def words(value: object) -> str:
    """A value as the tables write it."""
    return json.dumps(value).strip('"')


def test_every_reserved_attribute_is_documented():
    assert {name_of(name) for name, *_ in rows("queue-metadata.md", 5)} == set(ATTRIBUTES)


@pytest.mark.parametrize("row", rows("queue-metadata.md", 5), ids=lambda row: row[0])
def test_a_documented_attribute_has_its_type_bounds_and_default(row):
    name, kind, bounds, default, _ = row
    rule = ATTRIBUTES[name_of(name)]
    shown = defaults(Limits())

    assert rule["type"] == [kind, "null"]
    assert [int(number) for number in re.findall(r"\b\d+\b", bounds)] == [
        rule[bound] for bound in ("minimum", "maximum") if bound in rule
    ]
    assert default == (words(shown[name_of(name)]) if name_of(name) in shown else "not shown")


def test_every_member_of_the_retry_policy_is_documented():
    documented = {
        name_of(name): (kind, name_of(default)) for name, kind, default in rows("queue-metadata.md", 3)
    }

    assert {name: default for name, (_, default) in documented.items()} == {
        name: words(value) for name, value in RETRY_DEFAULTS.items()
    }
    assert set(documented) == set(MEMBERS)
    for name, (kind, _) in documented.items():
        rule = MEMBERS[name]
        if "enum" in rule:
            assert re.findall(r"`(\w+)`", kind) == [value for value in rule["enum"] if value]
        else:
            assert kind.partition(",")[0] == rule["type"][0]
            assert [int(number) for number in re.findall(r"\d+", kind)] == [
                rule[bound] for bound in ("minimum", "maximum") if bound in rule
            ]


# --- Pages


def slug(heading: str) -> str:
    """The anchor of a heading, as forges make it."""
    kept = (
        letter
        for letter in heading.strip().lower()
        if letter in "-_ " or unicodedata.category(letter)[0] in "LN"
    )
    return "".join(kept).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {slug(LINK.sub(lambda found: found[0][1:].partition("]")[0], heading)) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_index_leads_to_every_page():
    index = DOCS / "README.md"
    listed = {
        (DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))
    }

    assert set(DOCS.rglob("*.md")) - {index} <= listed


RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) \((.+)\)$", re.MULTILINE)


def releases_of_the_changelog():
    """Return each version and when it was released, the newest first."""
    return RELEASE.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_the_version_is_on_top_of_the_changelog():
    assert releases_of_the_changelog()[0][0] == queues.__version__


def test_a_version_is_unreleased_in_the_changelog_until_what_it_wrote_is_kept():
    kept = {path.parent.name for path in (ROOT / "tests" / "releases").glob("*/*.whl")}

    released = {version for version, when in releases_of_the_changelog() if when != "unreleased"}

    assert released == kept
