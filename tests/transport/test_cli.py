"""The command line: what scripts rely on."""

import json
import logging
import re
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

import queues
from queues.signing import SignedUrl, Signer
from transport import cli

STORE = "sqlite:///some.db"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _log_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # setting the log up closes what it replaces
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def hermod(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=dict(environ)).invoke(cli.hermod, arguments, prog_name="hermod")


def said(result: Result) -> list[str]:
    """The lines of an error, which is expected and so has no traceback."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.stderr.splitlines()


class TestVersion:
    def test_it_is_the_version_of_the_package(self):
        assert hermod("--version").stdout == f"hermod {queues.__version__}\n"

    def test_it_loads_nothing_heavy(self):
        program = "import sys, transport.cli; print(*sys.modules)"
        loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
        assert not loaded & {"falcon", "gunicorn", "pydantic", "structlog", "cryptography", "sqlite3"}


class TestConfig:
    def test_it_shows_values_and_where_they_come_from(self, tmp_path):
        (tmp_path / "hermod.toml").write_text("[api]\nthreads = 3")
        result = hermod("config", "--workers", "4", "--admin", HERMOD_LOG_LEVEL="debug")
        assert result.exit_code == 0
        lines = dict(re.split(r" +# ", line) for line in result.stdout.splitlines())
        assert lines["api.threads = 3"] == f"file {tmp_path / 'hermod.toml'}"
        assert lines["api.workers = 4"] == "flag --workers"
        assert lines["admin = true"] == "flag --admin"
        assert lines['log.level = "debug"'] == "environment HERMOD_LOG_LEVEL"
        assert lines["api.keepalive = 75"] == "default"

    def test_it_hides_secrets(self):
        keys = ",".join(["hunter2" * 3] * 2)
        result = hermod("config", "--store", "redis://u:hunter2@host", HERMOD_SIGNED_URL_SECRET_KEYS=keys)
        assert "redis://u:***@host" in result.stdout
        assert "hunter2" not in result.output

    def test_its_default_file_is_toml(self):
        result = hermod("config", "--toml")
        assert set(tomllib.loads(result.stdout)) > {"api", "limits"}

    def test_a_wrong_setting_is_a_line_on_standard_error(self, tmp_path):
        (tmp_path / "h.toml").write_text("wrokers = 3")
        result = hermod("config", "--config", "h.toml", "--threads", "x")
        assert result.exit_code == 2
        assert said(result) == [
            f"hermod: file {tmp_path / 'h.toml'}: there is no setting wrokers; the nearest known one is api.workers",
            "hermod: flag --threads: api.threads should be a valid integer, not 'x'",
        ]


class TestCheck:
    def test_all_is_well(self, tmp_path):
        result = hermod("check", "--store", STORE)
        assert result.exit_code == 0
        assert "settings: valid; file: none" in result.stdout
        assert f"store: {STORE}" in result.stdout
        assert "sqlite" in result.stdout.split("pool (default): ")[1]

    def test_a_store_that_cannot_be_used(self, tmp_path):
        (tmp_path / "file").write_text("")
        result = hermod("check", "--store", "sqlite:///file/x.db")
        assert result.exit_code == 1
        assert len(said(result)) == 1

    def test_a_store_that_nobody_knows(self):
        result = hermod("check", "--store", "floppy:///a")
        assert result.exit_code == 1
        assert "sqlite" in said(result)[0]

    def test_settings_that_let_everybody_in(self):
        result = hermod("check", "--bind", "0.0.0.0:8888", "--store", STORE)
        assert result.exit_code == 2
        assert "allow_unauthenticated" in said(result)[0]

    @pytest.mark.parametrize("command", ["check", "notifier"])
    @pytest.mark.parametrize(
        ("name", "environ"),
        [
            ("mail.user", {"HERMOD_MAIL_USER": "u", "HERMOD_MAIL_SECURITY": "plain"}),
            ("mail.sender", {"HERMOD_MAIL_SENDER": "nobody"}),
            ("notifier.private_keys", {"HERMOD_NOTIFIER_PRIVATE_KEYS": "whsk_nonsense"}),
            ("notifier.signing_keys", {"HERMOD_NOTIFIER_SIGNING_KEYS": "short"}),
            ("signed_url.secret_keys", {"HERMOD_SIGNED_URL_SECRET_KEYS": "short"}),
            ("notifier.require_confirmation", {"HERMOD_NOTIFIER_REQUIRE_CONFIRMATION": "true"}),
            ("egress.allow", {"HERMOD_EGRESS_ALLOW": "10.0.0.1/8"}),
            ("bridge.url", {"HERMOD_BRIDGE_URL": "amqp://h"}),
            ("keystone.password", {"HERMOD_KEYSTONE_AUTH_URL": "https://h", "HERMOD_KEYSTONE_USERNAME": "u"}),
        ],
    )
    def test_what_a_notifier_could_not_work_with_is_wrong_for_all(self, command, name, environ):
        result = hermod(command, "--store", STORE, **environ)
        assert result.exit_code == 2
        (line,) = said(result)
        assert name in line

    @pytest.mark.parametrize("command", ["check", "notifier"])
    def test_the_library_for_keystone_is_named_where_it_is_missing(self, command, monkeypatch):
        for name in ("notifiers.keystone", "keystoneauth1.exceptions"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, "keystoneauth1", None)
        keystone = {"URL": "https://h", "USERNAME": "u", "PASSWORD": "p"}
        environ = {
            f"HERMOD_KEYSTONE_{name.replace('URL', 'AUTH_URL')}": text for name, text in keystone.items()
        }
        result = hermod(command, "--store", STORE, **environ)
        assert result.exit_code == 1
        (line,) = said(result)
        assert "pip install 'hermod[keystone]'" in line

    def test_warnings_do_not_change_the_exit_code(self):
        result = hermod(
            "check", "--bind", "0.0.0.0:8888", "--store", STORE, HERMOD_ALLOW_UNAUTHENTICATED="true"
        )
        assert result.exit_code == 0
        assert "warning: Whoever reaches api.bind" in result.stdout

    def test_wrong_settings(self):
        assert hermod("check", HERMOD_STOER="x").exit_code == 2


class TestServing:
    @pytest.mark.parametrize("command", ["serve", "api", "websocket"])
    def test_it_is_refused_where_it_would_let_everybody_in(self, command):
        result = hermod(command, "--bind", "0.0.0.0:8888")
        assert result.exit_code == 2
        assert "auth_strategy" in said(result)[0]

    def test_websockets_that_would_let_everybody_in_are_refused_with_the_rest(self):
        result = hermod("serve", HERMOD_WEBSOCKET_BIND="0.0.0.0:9000")
        assert result.exit_code == 2
        assert "websocket.bind 0.0.0.0:9000 can be reached" in said(result)[0]

    def test_a_store_in_memory_has_one_worker(self):
        result = hermod("api", "--store", "memory:", "--workers", "2")
        assert result.exit_code == 2
        assert "api.workers should be 1" in said(result)[0]

    @pytest.mark.parametrize(
        "command",
        [
            ["websocket"],
            ["notifier"],
            ["janitor"],
            ["token", "list"],
            ["token", "create", "--project", "p"],
            ["token", "revoke", "x"],
        ],
    )
    def test_a_store_in_memory_is_out_of_reach_for_other_processes(self, command):
        result = hermod(*command, "--store", "memory:")
        assert result.exit_code == 2
        assert "memory:" in said(result)[0]

    @pytest.mark.parametrize("arguments", [["frobnicate"], ["serve", "--frobnicate"], ["serve", "more"]])
    def test_wrong_use(self, arguments):
        assert hermod(*arguments).exit_code == 2


class TestSignUrl:
    KEY = "0123456789abcdef"

    def sign(self, *arguments: str) -> Result:
        return hermod("sign-url", *arguments, HERMOD_SIGNED_URL_SECRET_KEYS=f"{self.KEY},{'old' * 6}")

    def verify(self, document: dict[str, Any], method: str, path: str) -> None:
        shown = SignedUrl(**document)
        Signer([self.KEY.encode()]).verify(shown, method=method, path=path, now=datetime.now(UTC))

    def test_the_document_opens_what_was_asked_for(self):
        result = self.sign(
            "q", "--project", "p", "--path", "claims", "--path", "messages", "--method", "post", "--json"
        )
        document = json.loads(result.stdout)
        assert set(document) == {"project", "paths", "methods", "expires", "signature"}
        assert document["paths"] == ["/v2/queues/q/claims", "/v2/queues/q/messages"]
        assert document["methods"] == ["POST"]
        self.verify(document, "POST", "/v2/queues/q/claims")

    def test_the_headers_say_the_same(self):
        arguments = [
            "q",
            "--project",
            "p",
            "--method",
            "GET",
            "--method",
            "DELETE",
            "--expires",
            "2100-01-01T00:00:00",
        ]
        headers = dict(line.split(": ", 1) for line in self.sign(*arguments).stdout.splitlines())
        assert headers.pop("URL-Signature") == json.loads(self.sign(*arguments, "--json").stdout)["signature"]
        assert headers == {
            "URL-Expires": "2100-01-01T00:00:00",
            "URL-Methods": "DELETE,GET",
            "URL-Paths": "/v2/queues/q/messages",
            "X-Project-ID": "p",
        }

    @pytest.mark.parametrize(
        ("text", "seconds"), [("+90", 90), ("90", 90), ("15m", 900), ("1h", 3600), ("2d", 172800)]
    )
    def test_it_can_expire_in_a_while(self, text, seconds):
        before = datetime.now(UTC)
        document = json.loads(self.sign("q", "--project", "p", "--expires", text, "--json").stdout)
        expires = datetime.fromisoformat(document["expires"]).replace(tzinfo=UTC)
        assert -1 <= (expires - before).total_seconds() - seconds <= 60

    @pytest.mark.parametrize(
        "arguments",
        [
            ["q"],
            ["--project", "p"],
            ["q/r", "--project", "p"],
            ["q", "--project", "p", "--path", "stats"],
            ["q", "--project", "p", "--method", "FETCH"],
            ["q", "--project", "p", "--expires", "soon"],
            ["q", "--project", "p", "--expires", "2001-01-01T00:00:00"],
            ["q", "--project", "p", "--expires", "9999999999d"],
        ],
    )
    def test_wrong_use(self, arguments):
        result = self.sign(*arguments)
        assert result.exit_code == 2
        assert said(result)

    def test_without_a_key_there_is_nothing_to_sign_with(self):
        assert hermod("sign-url", "q", "--project", "p").exit_code == 2


class TestTokens:
    def tokens(self, *arguments: str) -> Result:
        return hermod("token", *arguments, "--store", STORE)

    def test_a_token_is_shown_once_and_can_be_revoked(self):
        made = self.tokens("create", "--project", "p", "--role", "reader", "--name", "the printer")
        assert made.exit_code == 0
        (secret,) = made.stdout.splitlines()
        token_id = re.search(r"hmd_([0-9a-f]+)_", secret)[1]  # type: ignore[index]
        listed = self.tokens("list").stdout
        assert re.fullmatch(rf"{token_id} +reader +project p +never expires +the printer\n", listed)
        assert secret not in listed
        assert self.tokens("revoke", token_id).exit_code == 0
        assert self.tokens("list").stdout == ""

    def test_lists_can_be_of_one_project(self):
        self.tokens("create", "--project", "p")
        self.tokens("create", "--project", "r")
        assert len(self.tokens("list").stdout.splitlines()) == 2
        assert "project p" in self.tokens("list", "--project", "p").stdout
        assert len(self.tokens("list", "--project", "p").stdout.splitlines()) == 1

    def test_a_token_can_expire(self):
        self.tokens("create", "--project", "p", "--expires", "2100-01-01T00:00:00+01:00")
        assert "expires 2099-12-31T23:00:00Z" in self.tokens("list").stdout

    @pytest.mark.parametrize(("text", "seconds"), [("3600", 3600), ("1h", 3600), ("30d", 2592000)])
    def test_a_token_can_expire_in_a_while(self, text, seconds):
        before = time.time()
        self.tokens("create", "--project", "p", "--expires", text)
        found = re.search(r"expires (\S+)Z", self.tokens("list").stdout)[1]  # type: ignore[index]
        expires = datetime.fromisoformat(found).replace(tzinfo=UTC).timestamp()
        assert -2 <= expires - before - seconds <= 60

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--project", ""],
            ["--project", "p", "--role", "king"],
            ["--project", "p", "--expires", "tomorrow"],
            ["--project", "p", "--expires", "2001-01-01"],
        ],
    )
    def test_wrong_use(self, arguments):
        result = self.tokens("create", *arguments)
        assert result.exit_code == 2
        assert said(result)

    def test_an_unknown_token_cannot_be_revoked(self):
        result = self.tokens("revoke", "0123456789abcdef")
        assert result.exit_code == 1
        assert said(result) == ["hermod: There is no such token."]


def test_the_module_runs_the_command_line(monkeypatch):
    answer = subprocess.run(
        [sys.executable, "-m", "transport", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"hermod {queues.__version__}\n"
