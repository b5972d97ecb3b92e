"""Settings: what can be set, where it is found, and what is said when it is wrong."""

import base64
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from queues.limits import Limits
from queues.models import Role
from transport.access import RULES
from transport.settings import Settings, SettingsError, check_exposure, hide_password, load, warnings
from transport.settings.keys import KEYS, Kind
from transport.settings.listing import default_file, effective
from transport.settings.model import LIMITS

KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(text)
    return path


def problems(**arguments: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**{"environ": {}, **arguments})
    return str(caught.value).splitlines()


class TestDefaults:
    def test_settings_without_arguments_are_all_defaults(self):
        settings = Settings()
        assert settings.store == "sqlite:///hermod-data/hermod.db"
        assert settings.auth_strategy == "none"
        assert settings.api.address() == ("127.0.0.1", 8888)
        assert (settings.api.workers, settings.api.threads) == (2, 8)
        assert settings.idempotency.window == 600
        assert settings.access == {}

    def test_loading_nothing_gives_the_same(self):
        loaded = load(environ={})
        assert loaded.settings == Settings()
        assert loaded.file is None
        assert set(loaded.sources.values()) == {"default"}

    def test_limits_are_those_of_the_domain(self):
        assert Settings().limits == Limits()
        assert list(LIMITS) == [field.name for field in fields(Limits)]

    def test_settings_are_frozen(self):
        with pytest.raises(ValidationError):
            Settings().store = "memory:"

    def test_every_setting_is_described(self):
        for key in KEYS.values():
            assert re.fullmatch(r"[A-Za-z].*[.\"]", key.description), key.name

    def test_no_two_settings_share_an_environment_name(self):
        assert len({key.environ for key in KEYS.values()}) == len(KEYS)

    def test_a_memory_store_has_one_worker_unless_told_otherwise(self):
        assert Settings(store="memory:").api.workers == 1
        (line,) = problems(environ={"HERMOD_STORE": "memory:", "HERMOD_API_WORKERS": "2"})
        assert line.startswith("settings: api.workers should be 1")


class TestSources:
    def test_flags_override_the_environment_which_overrides_the_file(self, tmp_path):
        file = written(tmp_path, "admin = true\n[api]\nworkers = 3\nthreads = 3\nkeepalive = 3")
        loaded = load(file, {"HERMOD_API_WORKERS": "4", "HERMOD_API_THREADS": "4"}, {"api.workers": "5"})
        api = loaded.settings.api
        assert (api.workers, api.threads, api.keepalive, api.graceful_timeout) == (5, 4, 3, 30)
        assert loaded.sources["api.workers"] == "flag --workers"
        assert loaded.sources["api.threads"] == "environment HERMOD_API_THREADS"
        assert loaded.sources["api.keepalive"] == f"file {file}"
        assert loaded.sources["api.graceful_timeout"] == "default"
        assert loaded.settings.admin

    def test_a_flag_that_was_not_given_overrides_nothing(self):
        loaded = load(environ={"HERMOD_STORE": "memory:"}, flags={"store": None})
        assert loaded.settings.store == "memory:"

    def test_the_environment_can_name_the_file(self, tmp_path):
        file = written(tmp_path, "admin = true")
        loaded = load(environ={"HERMOD_CONFIG": "some.toml"})
        assert loaded.settings.admin
        assert loaded.file == file

    def test_a_file_that_is_named_by_flag_wins_over_the_one_of_the_environment(self, tmp_path):
        assert load(written(tmp_path, "admin = true"), {"HERMOD_CONFIG": "absent.toml"}).settings.admin

    def test_the_file_in_the_working_directory_is_found(self, tmp_path):
        (tmp_path / "hermod.toml").write_text("admin = true")
        assert load(environ={}).settings.admin

    @pytest.mark.parametrize(
        ("variable", "text", "key", "value"),
        [
            ("HERMOD_STORE", "sqlite:////var/lib/h.db", "store", "sqlite:////var/lib/h.db"),
            ("HERMOD_API_BIND", "[::1]:80", "api.bind", "[::1]:80"),
            ("HERMOD_LIMITS_MAX_MESSAGE_TTL", "7200", "limits.max_message_ttl", 7200),
            ("HERMOD_ADMIN", "true", "admin", True),
            ("HERMOD_CACHE_QUEUE_AGE", "0.5", "cache.queue_age", 0.5),
            ("HERMOD_LOG_LEVEL", "DEBUG", "log.level", "debug"),
            (
                "HERMOD_CORS_ALLOWED_ORIGINS",
                "https://a, https://b:1",
                "cors.allowed_origins",
                ("https://a", "https://b:1"),
            ),
            ("HERMOD_CORS_ALLOWED_ORIGINS", "", "cors.allowed_origins", ()),
            (
                "HERMOD_ACCESS",
                "queues:create=admin, queues:delete=reader",
                "access",
                {"queues:create": Role.ADMIN, "queues:delete": Role.READER},
            ),
        ],
    )
    def test_the_environment_writes_every_kind_of_value(self, variable, text, key, value):
        assert KEYS[key].value(load(environ={variable: text}).settings) == value

    def test_the_file_writes_every_kind_of_value(self, tmp_path):
        text = (
            'store = "memory:"\n[storage]\ntimeout = 1\n[cors]\nallowed_origins = ["*"]\n'
            '[access]\n"queues:create" = "admin"\n[limits]\nmax_message_ttl = 7200\n'
        )
        settings = load(written(tmp_path, text), {}).settings
        assert settings.storage.timeout == 1.0
        assert settings.cors.allowed_origins == ("*",)
        assert settings.access == {"queues:create": Role.ADMIN}
        assert settings.limits == Limits(max_message_ttl=7200)

    def test_variables_of_tests_and_of_kubernetes_are_none_of_ours(self):
        load(
            environ={
                "HERMOD_TEST_REDIS": "redis://",
                "HERMOD_SERVICE_HOST": "10.0.0.1",
                "HERMOD_SERVICE_PORT": "8888",
                "HERMOD_SERVICE_PORT_HTTP": "8888",
                "HERMOD_PORT": "tcp://10.0.0.1:8888",
                "HERMOD_PORT_8888_TCP": "tcp://10.0.0.1:8888",
                "HERMOD_PORT_8888_TCP_PROTO": "tcp",
                "HERMOD_API_SERVICE_HOST": "10.0.0.2",
                "HERMOD_API_PORT": "tcp://10.0.0.2:8888",
                "PATH": "/bin",
            }
        )

    def test_a_child_process_loads_the_same_from_its_environment(self, tmp_path):
        file = written(tmp_path, "[api]\nthreads = 3")
        loaded = load(file, {}, {"admin": True, "api.workers": "5", "store": "sqlite:///x.db"})
        assert load(environ=loaded.environ()).settings == loaded.settings


class TestMistakes:
    def test_an_unknown_key_in_the_file_names_the_nearest_and_the_place(self, tmp_path):
        file = written(tmp_path, "wrokers = 3\n[api]\nbnid = 1\n[apis]\nthreads = 2\n")
        assert problems(file=file) == [
            f"file {file}: there is no setting wrokers; the nearest known one is api.workers",
            f"file {file}: there is no setting api.bnid; the nearest known one is api.bind",
            f"file {file}: there is no setting apis.threads; the nearest known one is api.threads",
        ]

    def test_an_unknown_variable_names_the_nearest(self):
        assert problems(environ={"HERMOD_API_WROKERS": "3"}) == [
            "environment HERMOD_API_WROKERS: there is no such setting; the nearest known one is HERMOD_API_WORKERS"
        ]

    @pytest.mark.parametrize("name", ["HERMOD_PORT", "HERMOD_API_PORT"])
    def test_a_port_that_kubernetes_did_not_write_is_a_mistake(self, name):
        assert len(problems(environ={name: "8888"})) == 1

    def test_a_section_is_not_a_setting(self, tmp_path):
        file = written(tmp_path, "api = 3")
        assert problems(file=file) == [f"file {file}: api is a section, not a setting"]

    def test_all_mistakes_are_told_at_once_each_with_its_place(self, tmp_path):
        file = written(tmp_path, '[api]\nworkers = "two"\nthreads = true\n[janitor]\nbatch = 0')
        assert problems(file=file, environ={"HERMOD_ADMIN": "maybe"}, flags={"api.bind": "x"}) == [
            f"file {file}: api.threads should be a number",
            "environment HERMOD_ADMIN: admin should be a valid boolean, not 'maybe'",
            "flag --bind: api.bind should be HOST:PORT or [IPv6]:PORT, such as 127.0.0.1:8888, not 'x'",
            f"file {file}: api.workers should be a valid integer, not 'two'",
            f"file {file}: janitor.batch should be greater than or equal to 1, not 0",
        ]

    def test_a_file_that_is_not_there(self, tmp_path):
        file = tmp_path / "absent.toml"
        assert problems(file=file) == [f"file {file}: cannot be read: No such file or directory"]

    @pytest.mark.parametrize("content", [b"admin = ", b"\xff\xfe"])
    def test_a_file_that_is_not_toml(self, tmp_path, content):
        file = tmp_path / "bad.toml"
        file.write_bytes(content)
        (line,) = problems(file=file)
        assert line.startswith(f"file {file}: is not TOML: ")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("store", "hermod.db"),
            ("api.bind", "8888"),
            ("api.bind", ":8888"),
            ("api.bind", "::1:8888"),
            ("api.bind", "a:65536"),
            ("api.workers", 0),
            ("storage.timeout", 0),
            ("storage.timeout", "nan"),
            ("storage.timeout", "inf"),
            ("log.level", "loud"),
            ("cors.allowed_origins", ["https://a/b"]),
            ("access", {"queues:create": "king"}),
            ("limits.max_message_ttl", "x"),
            ("mail.sender", "hermod"),
            ("mail.sender", "Hermod <hermod@example.org>"),
            ("mail.sender", "hermod@example.org\nBcc: all@example.org"),
            ("notifier.private_keys", ["whsk_AAAA"]),
            ("notifier.private_keys", ["whsec_" + KEY]),
            ("notifier.private_keys", [""]),
            ("notifier.signing_keys", ["a" * 16, "a" * 15]),
            ("signed_url.secret_keys", ["a" * 15]),
            ("bridge.queue", "a/b"),
            ("bridge.project", "p" * 257),
            ("bridge.queue_arguments", {"x-delivery-limit": 1.5}),
            ("keystone.auth_url", "keystone.example.org"),
            ("keystone.auth_url", "ftp://keystone.example.org/v3"),
            ("keystone.auth_url", "https://keystone.example.org/v3?a=b"),
            ("keystone.auth_url", "https://keystone.example.org:port/v3"),
            ("keystone.cafile", "there/is/no/such/file.pem"),
            ("keystone.timeout", 0),
            ("keystone.timeout", 61),
        ],
    )
    def test_a_value_that_is_out_of_the_question(self, key, value):
        (line,) = problems(flags={key: value})
        assert key in line

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("limits.max_message_ttl", 3599),
            ("limits.default_claim_ttl", 59),
            ("limits.max_message_delay", -1),
            ("limits.max_queues_per_page", 0),
            ("limits.max_claim_ttl", 2**31),
            ("wire.min_length_client_id", 37),
        ],
    )
    def test_a_value_that_contradicts_another(self, key, value):
        (line,) = problems(flags={key: value})
        assert key.partition(".")[2].removeprefix("max_") in line

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_password_for_mail_needs_an_encrypted_connection(self, security):
        environ = {"HERMOD_MAIL_USER": "hermod", "HERMOD_MAIL_SECURITY": "plain"}
        (line,) = problems(environ=environ)
        assert line.startswith("mail: mail.user should be empty where mail.security is plain")
        load(environ={**environ, "HERMOD_MAIL_SECURITY": security})
        load(environ={"HERMOD_MAIL_SECURITY": "plain"})

    def test_confirmations_need_a_key_to_be_signed_with(self):
        environ = {"HERMOD_NOTIFIER_REQUIRE_CONFIRMATION": "true"}
        (line,) = problems(environ=environ)
        assert line.startswith(
            "settings: notifier.require_confirmation should be off without a key in signed_url"
        )
        load(environ={**environ, "HERMOD_SIGNED_URL_SECRET_KEYS": "a" * 16})

    @pytest.mark.parametrize("missing", ["EXCHANGES", "TOPICS", "PROJECT"])
    def test_a_bridge_leads_from_somewhere_to_somewhere(self, missing):
        environ = {
            "HERMOD_BRIDGE_URL": "amqp://u:hunter2@h:5672//;amqps://u:hunter2@i//",
            "HERMOD_BRIDGE_EXCHANGES": "nova,neutron",
            "HERMOD_BRIDGE_PROJECT": "acme",
        }
        assert load(environ=environ).settings.bridge.exchanges == ("nova", "neutron")
        (line,) = problems(environ={**environ, f"HERMOD_BRIDGE_{missing}": ""})
        assert line.startswith("bridge: bridge.url should be set with bridge.exchanges, bridge.topics and")

    @pytest.mark.parametrize(
        "url", ["rabbit.example.org", "http://u:hunter2@h", "amqp://u:hunter2@h;nonsense"]
    )
    def test_a_url_that_is_no_brokers_is_refused_and_not_repeated(self, url):
        (line,) = problems(environ={"HERMOD_BRIDGE_URL": url})
        assert line.startswith("environment HERMOD_BRIDGE_URL: bridge.url should be amqp://")
        assert "hunter2" not in line

    @pytest.mark.parametrize("missing", ["USERNAME", "PASSWORD"])
    def test_at_keystone_the_service_is_somebody(self, missing):
        environ = {
            "HERMOD_KEYSTONE_AUTH_URL": "https://keystone.example.org:5000/v3",
            "HERMOD_KEYSTONE_USERNAME": "hermod",
            "HERMOD_KEYSTONE_PASSWORD": "hunter2",
        }
        loaded = load(environ=environ)
        assert loaded.settings.keystone.password.get_secret_value() == "hunter2"
        assert "hunter2" not in "\n".join(
            [repr(loaded.settings), *effective(loaded.settings, loaded.sources)]
        )
        (line,) = problems(environ={**environ, f"HERMOD_KEYSTONE_{missing}": ""})
        assert line.startswith(
            "keystone: keystone.auth_url should be set with keystone.username and keystone.p"
        )
        assert "hunter2" not in line

    def test_a_password_in_the_url_of_keystone_is_refused_and_not_repeated(self):
        (line,) = problems(
            environ={"HERMOD_KEYSTONE_AUTH_URL": "https://hermod:hunter2@keystone.example.org"}
        )
        assert line.startswith(
            "environment HERMOD_KEYSTONE_AUTH_URL: keystone.auth_url should be a URL such as"
        )
        assert "hunter2" not in line

    def test_arguments_of_a_queue_are_numbers_and_switches_where_they_look_like_it(self, tmp_path):
        wanted = {"x-queue-type": "quorum", "x-delivery-limit": -1, "x-single-active-consumer": True}
        text = "x-queue-type=quorum,x-delivery-limit=-1,x-single-active-consumer=true"
        file = written(
            tmp_path,
            "[bridge]\nqueue_arguments = "
            '{ x-queue-type = "quorum", x-delivery-limit = -1, x-single-active-consumer = true }',
        )
        for loaded in (load(environ={"HERMOD_BRIDGE_QUEUE_ARGUMENTS": text}), load(file, {})):
            found = loaded.settings.bridge.queue_arguments
            assert found == wanted
            assert [type(value) for value in found.values()] == [str, int, bool]

    def test_an_unknown_access_rule_names_the_nearest(self):
        (line,) = problems(environ={"HERMOD_ACCESS": "queue:create=admin"})
        assert line.startswith("environment HERMOD_ACCESS: access has no rule 'queue:create'")
        assert line.endswith("'queues:create'")

    def test_every_access_rule_can_be_set(self):
        assert Settings(access=dict(RULES)).access == RULES

    def test_a_table_in_the_environment_needs_equal_signs(self):
        assert len(problems(environ={"HERMOD_ACCESS": "queues:create"})) == 1


class TestSecrets:
    def test_keys_come_as_bytes(self):
        new, old = "new" * 6, "old" * 6
        environ = {
            "HERMOD_SIGNED_URL_SECRET_KEYS": f"{new},{old}",
            "HERMOD_NOTIFIER_SIGNING_KEYS": f"{new},{old}",
            "HERMOD_NOTIFIER_PRIVATE_KEYS": f"whsk_{KEY}",
            "HERMOD_ENCRYPTION_KEYS": f"b:{KEY},a:{KEY}",
        }
        settings = load(environ=environ).settings
        assert settings.signed_url.signing_keys() == [new.encode(), old.encode()]
        assert settings.notifier.shared_keys() == [new.encode(), old.encode()]
        assert settings.notifier.ed25519_keys() == [bytes(32)]
        assert list(settings.encryption.ring().items()) == [("b", bytes(32)), ("a", bytes(32))]

    @pytest.mark.parametrize(
        "key", ["c2VjcmV0", "a:c2VjcmV0", f":{KEY}", f"a b:{KEY}", f"a:{KEY}!", f"a:{KEY},a:{KEY}"]
    )
    def test_a_wrong_key_is_refused_and_not_repeated(self, key):
        (line,) = problems(environ={"HERMOD_ENCRYPTION_KEYS": key})
        assert "encryption.keys" in line
        assert "c2VjcmV0" not in line
        assert KEY not in line

    @pytest.mark.parametrize(
        "key", ["signed_url.secret_keys", "notifier.signing_keys", "notifier.private_keys"]
    )
    def test_a_key_that_is_refused_is_not_repeated(self, key):
        (line,) = problems(flags={key: ["hunter2"]})
        assert key in line
        assert "hunter2" not in line

    def test_secrets_are_in_no_text(self, tmp_path):
        file = written(
            tmp_path,
            f'store = "redis://u:hunter2@host"\n[signed_url]\nsecret_keys = ["hunter2hunter2hunter2"]\n'
            f'[encryption]\nkeys = ["a:{KEY}"]',
        )
        loaded = load(file, {})
        shown = "\n".join([repr(loaded), str(loaded.settings), *effective(loaded.settings, loaded.sources)])
        assert "hunter2" not in shown
        assert KEY not in shown

    def test_a_rejected_store_does_not_show_its_password(self):
        (line,) = problems(flags={"store": "Redis://u:hunter2@host"})
        assert "hunter2" not in line

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("redis://u:p@h:1/0", "redis://u:***@h:1/0"),
            ("redis://:p@h", "redis://:***@h"),
            ("mongodb://u:p@h1:1,h2:2/db?x=y", "mongodb://u:***@h1:1,h2:2/db?x=y"),
            ("redis://u:p@ss/wo:rd@h", "redis://u:***@h"),
            ("redis://h:1/0", "redis://h:1/0"),
            ("sqlite:///a/b.db", "sqlite:///a/b.db"),
            ("memory:", "memory:"),
        ],
    )
    def test_the_password_of_a_uri_is_hidden(self, uri, shown):
        assert hide_password(uri) == shown


class TestExposure:
    @pytest.mark.parametrize("bind", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1"])
    def test_loopback_needs_no_authentication(self, bind):
        check_exposure(load(environ={"HERMOD_API_BIND": bind}).settings)

    @pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1"])
    def test_other_addresses_need_it_or_consent(self, bind):
        environ = {"HERMOD_API_BIND": bind}
        with pytest.raises(SettingsError, match="auth_strategy"):
            check_exposure(load(environ=environ).settings)
        consenting = load(environ={**environ, "HERMOD_ALLOW_UNAUTHENTICATED": "true"}).settings
        check_exposure(consenting)
        assert len(list(warnings(consenting))) == 1
        check_exposure(load(environ={**environ, "HERMOD_AUTH_STRATEGY": "token"}).settings)

    @pytest.mark.parametrize(
        ("url", "count"),
        [("http://10.0.0.1/v3", 1), ("https://10.0.0.1/v3", 0), ("http://localhost:5000", 0)],
    )
    def test_a_keystone_without_tls_is_worth_a_thought(self, url, count):
        environ = {
            "HERMOD_KEYSTONE_AUTH_URL": url,
            "HERMOD_KEYSTONE_USERNAME": "u",
            "HERMOD_KEYSTONE_PASSWORD": "p",
        }
        found = list(warnings(load(environ=environ).settings))
        assert ["keystone.auth_url" in each for each in found] == [True] * count


class TestListing:
    def test_the_default_file_says_nothing_until_edited(self, tmp_path):
        loaded = load(written(tmp_path, "\n".join(default_file())), {})
        assert set(loaded.sources.values()) == {"default"}

    def test_the_default_file_has_every_setting_with_its_default(self, tmp_path):
        text = re.sub(r"^#(?=\w+ = )", "", "\n".join(default_file()), flags=re.MULTILINE)
        file = written(tmp_path, text)
        loaded = load(file, {})
        assert loaded.settings == Settings()
        assert set(loaded.sources.values()) == {f"file {file}"}

    def test_what_is_in_force_is_written_as_toml_with_its_source(self):
        loaded = load(environ={"HERMOD_ACCESS": "queues:create=admin", "HERMOD_LOG_FORMAT": "json"})
        lines = list(effective(loaded.settings, loaded.sources))
        assert len(lines) == len(KEYS)
        document = tomllib.loads("\n".join(lines))
        assert document["access"] == {"queues:create": "admin"}
        assert document["api"]["workers"] == 2
        assert any(
            re.fullmatch(r'log\.format = "json" +# environment HERMOD_LOG_FORMAT', line) for line in lines
        )

    def test_each_kind_of_value_occurs(self):
        assert {key.kind for key in KEYS.values()} == set(Kind)
