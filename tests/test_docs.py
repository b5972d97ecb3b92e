"""The reference says all there is to say: a setting, command or flag that is not in it does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from transport.cli import hermod
from transport.settings.keys import KEYS
from transport.settings.listing import reference

DOCS = Path(__file__).parent.parent / "docs" / "reference"


def commands(group: click.Group = hermod, name: str = "hermod") -> Iterator[tuple[str, click.Command]]:
    for part, command in group.commands.items():
        yield f"{name} {part}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {part}")


def flags() -> Iterator[tuple[str, str]]:
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield from ((name, flag) for flag in parameter.opts)


def section(text: str, title: str) -> str:
    """The part of a page from one heading to the next."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {title!r}"
    return found[1]


@pytest.fixture(scope="module")
def cli_page() -> str:
    return (DOCS / "cli.md").read_text()


@pytest.fixture(scope="module")
def settings_page() -> str:
    return (DOCS / "settings.md").read_text()


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_setting_is_documented(settings_page, key):
    row = next(line for line in settings_page.splitlines() if line.startswith(f"| `{key.name}` |"))
    assert f"`{key.environ}`" in row
    assert key.description in row


def test_the_page_of_settings_is_the_one_that_is_made_from_the_model(settings_page):
    made = "\n".join(reference())
    assert settings_page == made, "run: .venv/bin/python -m transport.settings > docs/reference/settings.md"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_is_documented(cli_page, name):
    assert section(cli_page, name).strip()


@pytest.mark.parametrize(("name", "flag"), list(flags()))
def test_every_flag_is_documented_with_its_command(cli_page, name, flag):
    assert re.search(rf"{flag}\b", section(cli_page, name))


def test_every_documented_command_and_flag_exists(cli_page):
    known = set(flags())
    names = {name for name, _ in commands()}
    for heading in re.findall(r"^#+ (hermod .+)$", cli_page, re.MULTILINE):
        assert heading in names
        for flag in re.findall(r"--[a-z-]*[a-z]", section(cli_page, heading)):
            assert (heading, flag) in known


def test_the_flags_for_settings_name_what_they_stand_for(cli_page):
    rows = re.findall(r"^\| `(--\w+)[^|]*\| `([\w.]+)` \| `(HERMOD_\w+)` \|$", cli_page, re.MULTILINE)
    assert len(rows) == 5
    for flag, name, environ in rows:
        assert KEYS[name].environ == environ
        assert name.endswith(flag.removeprefix("--"))
