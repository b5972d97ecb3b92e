"""Tokens: what a client shows to prove its project and role.

A secret reads `hmd_ID_SECRET`. The store keeps the id, which is no secret, and a
digest of the rest, so that whoever reads the store cannot act as anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from queues.errors import Invalid, TokenNotFound, Unauthenticated
from queues.limits import MAX_PROJECT
from queues.models import Record, Role
from queues.ports import RecordStore

_KIND = "token"
_SCOPE = ""
_PAGE = 500
_SECRET = re.compile(r"hmd_([0-9a-f]{16})_([A-Za-z0-9_-]{43})").fullmatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token without its secret."""

    id: str  # 16 hexadecimal digits
    project: str  # whose resources it opens
    role: Role  # what it allows there
    name: str  # what it is for, in its owner's words
    created: int  # ms
    expires: int | None  # ms; None for never


class TokenService:
    """Makes, checks, lists and revokes tokens. `clock` gives ms since the epoch."""

    def __init__(self, records: RecordStore, clock: Callable[[], int]) -> None:
        self._records = records
        self._clock = clock

    def create(
        self, project: str, role: Role, *, expires: int | None = None, name: str = ""
    ) -> tuple[Token, str]:
        """Make a token; return it and its secret, which cannot be had again.

        `expires` is ms since the epoch.

        Raises Invalid for an empty or overlong project, or an expiry in the past.
        """
        now = self._clock()
        if not 1 <= len(project) <= MAX_PROJECT:
            raise Invalid(f"A project id has 1 to {MAX_PROJECT} characters.")
        if expires is not None and expires <= now:
            raise Invalid("The token would have expired already.")
        token = Token(
            id=secrets.token_hex(8), project=project, role=role, name=name, created=now, expires=expires
        )
        secret = secrets.token_urlsafe(32)
        self._records.insert(_record(token, _digest(secret)))
        return token, f"hmd_{token.id}_{secret}"

    def authenticate(self, text: str) -> Token:
        """Return the token that a secret belongs to.

        Raises Unauthenticated for anything but the secret of a token that is neither
        expired nor revoked.
        """
        parts = _SECRET(text)
        if parts is None:
            raise Unauthenticated
        record = self._records.fetch(_KIND, _SCOPE, parts[1])
        if record is None or not hmac.compare_digest(record.data["digest"], _digest(parts[2])):
            raise Unauthenticated
        token = _token(record)
        if token.expires is not None and token.expires <= self._clock():
            raise Unauthenticated
        return token

    def list(self, project: str | None = None) -> Sequence[Token]:
        """Return all tokens, or those of one project, by creation."""
        tokens: list[Token] = []
        after = ""
        while True:
            records = self._records.scan(_KIND, _SCOPE, after=after, limit=_PAGE)
            tokens += [_token(record) for record in records if project in (None, record.data["project"])]
            if len(records) < _PAGE:
                return sorted(tokens, key=lambda token: token.created)
            after = records[-1].name

    def revoke(self, token_id: str) -> None:
        """Make a token worthless at once.

        Raises TokenNotFound.
        """
        if not self._records.remove(_KIND, _SCOPE, token_id):
            raise TokenNotFound


def is_own(text: str) -> bool:
    """Whether this looks like the secret of a token that Hermod made, valid or not."""
    return text.strip().startswith("hmd_")


def _digest(secret: str) -> str:
    # The secret has 256 random bits, so a plain hash needs neither salt nor stretching.
    return hashlib.sha256(secret.encode()).hexdigest()


def _record(token: Token, digest: str) -> Record:
    return Record(
        kind=_KIND,
        scope=_SCOPE,
        name=token.id,
        data={
            "project": token.project,
            "role": token.role.name.lower(),
            "name": token.name,
            "created": token.created,
            "expires": token.expires,
            "digest": digest,
        },
    )


def _token(record: Record) -> Token:
    data = record.data
    return Token(
        id=record.name,
        project=data["project"],
        role=Role[data["role"].upper()],
        name=data["name"],
        created=data["created"],
        expires=data["expires"],
    )
