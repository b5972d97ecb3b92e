"""Keystone: trusts, and the tokens that they are good for.

A trust (OS-TRUST) lets the service's own user act for whoever made it, with the roles and in the
project of the token that it was made with, until it expires. The service asks for a trust when
somebody subscribes, and for tokens of it when there is something to deliver. What is asked blocks, for
`timeout` seconds each time at most; so it belongs in a thread.

Needs the extra `keystone` (keystoneauth1).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import structlog
from keystoneauth1.exceptions import (
    ClientException,
    Forbidden,
    HttpError,
    InvalidResponse,
    NotFound,
    Unauthorized,
)
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session

from notifiers.outcome import Undeliverable
from notifiers.trust_tokens import Token
from queues import __version__
from queues.errors import HermodError, TokenRefused, TrustRefused, TrustsUnavailable

_MOST_ENDING = 1000  # trusts that wait to be ended; the others end by themselves
_END = 5.0  # seconds after which no further one is ended, when the process is told to stop

_TOKEN = re.compile(r"[!-~]{1,16384}").fullmatch  # what can stand in a header

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeystoneSettings:
    """Where Keystone is, and who the service is there."""

    auth_url: str  # with or without /v3
    username: str
    password: str = field(repr=False)
    user_domain_name: str = "Default"
    project_name: str = ""  # what the user's own tokens are scoped to; "" for nothing
    project_domain_name: str = "Default"
    cafile: str = ""  # certificates (PEM) to trust; "" for those of the system
    timeout: float = 5.0  # seconds to connect, and to wait for an answer


class Keystone:
    """Asks Keystone, in whatever thread; every error but a defect is a HermodError."""

    def __init__(self, settings: KeystoneSettings) -> None:
        self._settings = settings
        self._url = settings.auth_url.rstrip("/").removesuffix("/v3") + "/v3"
        self._session = Session(
            verify=settings.cafile or True,
            timeout=settings.timeout,
            app_name="hermod",
            app_version=__version__,
        )
        self._service = self._user()

    def create_trust(self, token: str, *, expires: int) -> str:
        """Make a trust between whoever a token belongs to and the service, until then (ms); return its id.

        Raises TokenRefused, TrustRefused, TrustsUnavailable.
        """
        if not _TOKEN(token):
            raise TokenRefused
        with _keystone_errors():
            # First who the service is: so a 404 is no longer that of a wrong URL, but says something of the token.
            trustee = str(self._service.get_access(self._session).user_id)
            trustor = self._look_up(token)
            trust = {
                "trustor_user_id": trustor["user"]["id"],
                "trustee_user_id": trustee,
                "project_id": trustor["project"]["id"],
                "roles": [{"id": role["id"]} for role in trustor["roles"]],
                "impersonation": True,
                "expires_at": datetime.fromtimestamp(expires / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
            try:
                made = self._ask("POST", "/OS-TRUST/trusts", token, json={"trust": trust})
            except Unauthorized as error:
                raise TokenRefused from error
            except Forbidden as error:
                raise TrustRefused from error
            return str(made.json()["trust"]["id"])

    def delete_trust(self, trust_id: str) -> None:
        """End a trust; one that is gone stays so. Raises TrustsUnavailable."""
        try:
            # Only who made a trust may end it, and with a token of the trust that is who asks.
            token = self.token_of(trust_id)
        except Undeliverable:
            return
        with _keystone_errors():
            self._ask("DELETE", f"/OS-TRUST/trusts/{quote(trust_id, safe='')}", token.text)

    def token_of(self, trust_id: str) -> Token:
        """Return a new token of whoever made a trust.

        Raises Undeliverable where Keystone refuses that for good, TrustsUnavailable.
        """
        with _keystone_errors():
            try:
                access = self._user(trust_id=trust_id).get_access(self._session)
            except (Forbidden, NotFound) as error:
                raise _no_more() from error
            except Unauthorized as error:
                # So Keystone says that a trust is gone, and that a password is wrong.
                if self._is_known():
                    raise _no_more() from error
                raise
            if access.expires is None:
                raise ValueError("a token without an end")
            return Token(text=str(access.auth_token), expires=access.expires.timestamp())

    def close(self) -> None:
        """Let go of the connections."""
        self._session.session.close()

    def _user(self, *, trust_id: str | None = None) -> Password:
        """Return the service's user, as itself or with a trust."""
        settings = self._settings
        scope: dict[str, Any] = {"unscoped": True}
        if trust_id is not None:
            scope = {"trust_id": trust_id}
        elif settings.project_name:
            scope = {
                "project_name": settings.project_name,
                "project_domain_name": settings.project_domain_name,
            }
        return Password(
            auth_url=self._url,
            username=settings.username,
            password=settings.password,
            user_domain_name=settings.user_domain_name,
            include_catalog=False,
            **scope,
        )

    def _is_known(self) -> bool:
        """Whether Keystone knows the service's user by its password."""
        try:
            self._service.get_auth_ref(self._session)
        except Unauthorized:
            return False
        return True

    def _look_up(self, token: str) -> Any:  # noqa: ANN401 - JSON
        """Return what Keystone knows of a caller's token: its user, project and roles."""
        try:
            answer = self._ask("GET", "/auth/tokens?nocatalog", token, headers={"X-Subject-Token": token})
        except (Unauthorized, Forbidden, NotFound) as error:
            raise TokenRefused from error
        found = answer.json()["token"]
        if not found.get("project") or not found.get("roles"):
            raise TrustRefused(
                "The token in X-Auth-Token is not scoped to a project, so no trust can be made with it."
            )
        return found

    def _ask(
        self,
        method: str,
        path: str,
        token: str,
        *,
        headers: dict[str, str] | None = None,
        **named: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - a response of requests, which is typed by stubs that an operator does not have
        sent = {"X-Auth-Token": token, "Accept": "application/json", **(headers or {})}
        return self._session.request(
            f"{self._url}{path}", method, headers=sent, authenticated=False, log=False, **named
        )


class KeystoneTrusts:
    """Trusts (`queues.ports.Trusts`) of a Keystone; those that are no longer needed are ended by a thread."""

    def __init__(self, keystone: Keystone) -> None:
        self._keystone = keystone
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keystone")
        self._ending = 0  # how many wait; near enough, for it bounds them only
        self._until = float("inf")  # when there is no more time (seconds, monotonic)

    def create(self, token: str, *, expires: int) -> str:
        """Have whoever a token belongs to trust the service until then (ms); return the trust's id."""
        try:
            return self._keystone.create_trust(token, expires=expires)
        except TrustsUnavailable as error:
            _log.warning("cannot make a trust", reason=str(error.__cause__ or error))
            raise

    def remove(self, trust_id: str) -> None:
        """End a trust soon, if that can be done."""
        if self._ending < _MOST_ENDING:
            self._ending += 1
            with suppress(RuntimeError):  # the process ends
                self._thread.submit(self._remove, trust_id)

    def close(self) -> None:
        """End those that wait, for a few seconds."""
        self._until = time.monotonic() + _END
        self._thread.shutdown()
        self._keystone.close()

    def _remove(self, trust_id: str) -> None:
        self._ending -= 1
        if time.monotonic() > self._until:
            return
        try:
            self._keystone.delete_trust(trust_id)
        except HermodError as error:
            _log.warning("cannot end a trust", reason=str(error.__cause__ or error))


@contextmanager
def _keystone_errors() -> Iterator[None]:
    """Turn what keystoneauth raises, and answers that are none of Keystone's, into errors of the domain."""
    try:
        yield
    except Unauthorized as error:
        raise TrustsUnavailable("Keystone does not let the service in.") from error
    except HttpError as error:
        raise TrustsUnavailable(f"Keystone answered {error.http_status}.") from error
    except (InvalidResponse, LookupError, TypeError, ValueError, AttributeError) as error:
        raise TrustsUnavailable("What answers in place of Keystone is none.") from error
    except ClientException as error:
        raise TrustsUnavailable from error


def _no_more() -> Undeliverable:
    return Undeliverable(
        "Keystone gives no more tokens: the trust has ended, or its maker has lost the roles."
    )
