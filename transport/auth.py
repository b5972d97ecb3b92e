"""Who calls: from headers to an identity, for every transport.

Headers are read through a function from name to value (None where absent), so
that the headers of a websocket frame will do as well as those of HTTP. Identity
headers that a client sends are believed under the strategy `none` only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from queues.errors import Unauthenticated
from queues.models import Role
from queues.service.tokens import TokenService, is_own
from transport.problems import EmptyProject, MissingClientId, MissingProject, WrongClientId
from transport.settings import WireSettings

#: Value of a header by name, None where it is absent.
Headers: TypeAlias = Callable[[str], str | None]

_UUID = re.compile(r"[0-9a-fA-F]{32}").fullmatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What is known of a caller before it names the project itself."""

    project: str | None  # None: the caller's own word counts
    role: Role
    expires: int | None = None  # ms; None for never


class Strategy(Protocol):
    """One way of knowing who calls."""

    def identify(self, headers: Headers) -> Identity:
        """Return the caller's identity; raises Unauthenticated."""


class NoAuthentication:
    """Believes the headers: the project is what X-Project-ID says, the role what X-Roles says."""

    def identify(self, headers: Headers) -> Identity:
        """Return the role that the caller claims to have."""
        roles = {role.strip().lower() for role in (headers("X-Roles") or "").split(",")}
        if "admin" in roles:
            return Identity(project=None, role=Role.ADMIN)
        return Identity(project=None, role=Role.READER if roles == {"reader"} else Role.MEMBER)


class TokenAuthentication:
    """Asks for a token of Hermod's own, in X-Auth-Token or as a bearer.

    Who shows one as a bearer may have a token of Keystone's in X-Auth-Token: see `keystone_token_of`.
    """

    def __init__(self, tokens: TokenService) -> None:
        self._tokens = tokens

    def identify(self, headers: Headers) -> Identity:
        """Return the project and role of the token."""
        secret = headers("X-Auth-Token")
        scheme, _, bearer = (headers("Authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and (secret is None or not is_own(secret)):
            secret = bearer
        if secret is None:
            raise Unauthenticated
        token = self._tokens.authenticate(secret.strip())
        return Identity(project=token.project, role=token.role, expires=token.expires)


def strategy(name: str, tokens: TokenService) -> Strategy:
    """Return the strategy of the setting `auth_strategy`."""
    return TokenAuthentication(tokens) if name == "token" else NoAuthentication()


def keystone_token_of(headers: Headers) -> str | None:
    """Return a token that is not Hermod's own, and so may be one of Keystone's; None where there is none."""
    token = (headers("X-Auth-Token") or "").strip()
    return None if not token or is_own(token) else token


def project_of(identity: Identity, headers: Headers) -> str:
    """Return the project that a request is for.

    Raises MissingProject, EmptyProject.
    """
    if identity.project is not None:
        return identity.project
    for name in ("X-Project-ID", "X-Tenant-ID", "X-Tenant"):
        project = headers(name)
        if project is not None:
            if not project:
                raise EmptyProject
            return project
    raise MissingProject


def client_id_of(headers: Headers, wire: WireSettings) -> str:
    """Return the normalised Client-ID: 32 lower-case digits, or the text itself where any will do.

    Raises MissingClientId, WrongClientId.
    """
    text = headers("Client-ID")
    if text is None:
        raise MissingClientId
    if wire.client_id_uuid_safe == "off":
        if not wire.min_length_client_id <= len(text) <= wire.max_length_client_id:
            raise WrongClientId(
                f"The header Client-Id must have {wire.min_length_client_id}"
                f" to {wire.max_length_client_id} characters."
            )
        return text
    digits = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "")
    if not _UUID(digits):
        raise WrongClientId
    return digits.lower()
