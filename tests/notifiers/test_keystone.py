"""Trusts and their tokens, asked for at a Keystone of the tests' own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from notifiers.keystone import Keystone, KeystoneSettings, KeystoneTrusts
from notifiers.outcome import Undeliverable
from queues.errors import TokenRefused, TrustRefused, TrustsUnavailable
from tests import keystone as fake
from tests.keystone import PASSWORD, USER

HOUR = 3600


@pytest.fixture
def server() -> Iterator[fake.Keystone]:
    with fake.Keystone().serving() as keystone:
        yield keystone


@pytest.fixture
def connect(server: fake.Keystone) -> Iterator[Callable[..., Keystone]]:
    opened: list[Keystone] = []

    def build(**settings: Any) -> Keystone:
        defaults = {"auth_url": server.url, "username": USER, "password": PASSWORD, "timeout": 2.0}
        opened.append(Keystone(KeystoneSettings(**{**defaults, **settings})))
        return opened[-1]

    yield build
    for each in opened:
        each.close()


@pytest.fixture
def keystone(connect: Callable[..., Keystone]) -> Keystone:
    return connect()


def in_an_hour() -> int:
    return round((time.time() + HOUR) * 1000)


def test_a_trust_is_of_the_caller_and_with_all_that_the_token_says(server, keystone):
    expires = in_an_hour()
    id_ = keystone.create_trust(
        server.login("bob", project="p7", roles=("member", "reader")), expires=expires
    )

    trust = server.trusts[id_]
    assert (trust.trustor, trust.trustee, trust.project) == ("id of bob", f"id of {USER}", "p7")
    assert set(trust.roles) == {"member", "reader"}
    assert round(trust.expires * 1000) == expires


def test_a_token_of_a_trust_is_the_trustors(server, keystone):
    id_ = keystone.create_trust(server.login("bob"), expires=in_an_hour())
    token = keystone.token_of(id_)

    granted = server.tokens[token.text]
    assert (granted.user, granted.trust, granted.expires) == ("id of bob", id_, pytest.approx(token.expires))
    assert token.text not in repr(token)


@pytest.mark.parametrize("suffix", ["/v3", "/v3/", "", "/"])
def test_the_url_may_name_the_version(server, connect, suffix):
    base = server.url.removesuffix("/v3")
    assert connect(auth_url=base + suffix).create_trust(server.login(), expires=in_an_hour()) in server.trusts


def test_the_users_own_tokens_may_be_scoped(server, connect):
    connect(project_name="service").create_trust(server.login(), expires=in_an_hour())

    assert [granted.project for granted in server.tokens.values()] == ["p-blue", "p-service"]


def test_a_url_of_something_else_is_not_the_callers_fault(server, connect):
    with pytest.raises(TrustsUnavailable, match="404"):
        connect(auth_url=f"{server.url}/other").create_trust(server.login(), expires=in_an_hour())


@pytest.mark.parametrize("token", ["unknown", "", "two words", "line\nfeed", "\u20ac", "a" * 20_000])
def test_a_token_that_is_none_is_refused(keystone, token):
    with pytest.raises(TokenRefused):
        keystone.create_trust(token, expires=in_an_hour())


def test_an_expired_token_is_refused(server, keystone):
    server.lifetime = -1.0
    with pytest.raises(TokenRefused):
        keystone.create_trust(server.login(), expires=in_an_hour())


def test_a_token_without_a_project_makes_no_trust(server, keystone):
    with pytest.raises(TrustRefused, match="not scoped to a project"):
        keystone.create_trust(server.login(project=None), expires=in_an_hour())


def test_a_token_of_a_trust_makes_no_other_trust(server, keystone):
    id_ = keystone.create_trust(server.login(), expires=in_an_hour())
    with pytest.raises(TrustRefused):
        keystone.create_trust(keystone.token_of(id_).text, expires=in_an_hour())
    assert list(server.trusts) == [id_]


@pytest.mark.parametrize("status", [400, 409, 413, 500, 503])
def test_what_keystone_cannot_do_may_work_later(server, keystone, status):
    id_, token = keystone.create_trust(server.login(), expires=in_an_hour()), server.login()
    server.failing = status

    for work in (
        lambda: keystone.create_trust(token, expires=in_an_hour()),
        lambda: keystone.delete_trust(id_),
    ):
        with pytest.raises(TrustsUnavailable, match=str(status)):
            work()
    server.failing = None
    assert keystone.token_of(id_)


def test_a_wrong_password_is_the_services_own_fault(server, keystone):
    id_ = keystone.create_trust(server.login(), expires=in_an_hour())
    server.password = "another"
    with pytest.raises(TrustsUnavailable, match="does not let the service in"):
        keystone.token_of(id_)


def test_a_wrong_password_makes_no_trust(server, connect):
    with pytest.raises(TrustsUnavailable, match="does not let the service in"):
        connect(password="wrong").create_trust(server.login(), expires=in_an_hour())
    assert server.trusts == {}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_trust_that_is_gone_gives_no_tokens_any_more(server, keystone, status):
    id_ = keystone.create_trust(server.login(), expires=in_an_hour())
    server.trusts.clear()
    server.trust_is_gone = status
    with pytest.raises(Undeliverable, match="the trust has ended"):
        keystone.token_of(id_)


def test_nobody_there(server, connect):
    token = server.login()
    gone = connect(auth_url="http://127.0.0.1:1/v3")
    for work in (lambda: gone.create_trust(token, expires=in_an_hour()), lambda: gone.token_of("t")):
        with pytest.raises(TrustsUnavailable, match="does not answer"):
            work()


def test_p12_who_hangs_is_given_up(server, connect):
    token, server.hanging = server.login(), threading.Event()
    begun = time.monotonic()
    with pytest.raises(TrustsUnavailable, match="does not answer"):
        connect(timeout=0.2).create_trust(token, expires=in_an_hour())
    server.hanging.set()
    assert time.monotonic() - begun < 2


def test_what_is_no_keystone(server, keystone, monkeypatch):
    monkeypatch.setattr(server, "handle", lambda *_: (200, ["hello"], {}))
    for work in (lambda: keystone.create_trust("t", expires=in_an_hour()), lambda: keystone.token_of("t")):
        with pytest.raises(TrustsUnavailable, match="in place of Keystone"):
            work()


def test_a_trust_is_ended_in_the_name_of_who_made_it(server, keystone):
    id_ = keystone.create_trust(server.login(), expires=in_an_hour())
    keystone.delete_trust(id_)
    keystone.delete_trust(id_)

    assert (server.trusts, server.ended) == ({}, [id_])


def test_trusts_are_ended_without_waiting(server, keystone):
    trusts = KeystoneTrusts(keystone)
    ids = [trusts.create(server.login(), expires=in_an_hour()) for _ in range(3)]
    server.hanging = threading.Event()
    for id_ in ids:
        trusts.remove(id_)
    server.hanging.set()
    trusts.close()

    assert server.ended == ids


def test_trusts_that_cannot_be_ended_do_no_harm(server, keystone):
    trusts = KeystoneTrusts(keystone)
    id_ = trusts.create(server.login(), expires=in_an_hour())
    server.failing = 503
    trusts.remove(id_)
    trusts.close()
    trusts.remove(id_)

    assert server.asked[-1] == "POST /v3/auth/tokens"
    assert (list(server.trusts), server.ended) == ([id_], [])


def test_a12_nothing_secret_is_logged(server, keystone, caplog):
    caplog.set_level(logging.DEBUG)
    caller = server.login()
    id_ = keystone.create_trust(caller, expires=in_an_hour())
    token = keystone.token_of(id_)
    keystone.delete_trust(id_)

    assert "/v3/auth/tokens" in caplog.text
    for secret in (caller, token.text, PASSWORD):
        assert secret not in caplog.text
    assert PASSWORD not in repr(KeystoneSettings(auth_url="x", username="u", password=PASSWORD))
