"""Pre-signed URLs: a queue's owner lets somebody in without a token, for a while.

The signature is HMAC-SHA256 over paths, methods, project and expiry, as the Zaqar
v2 protocol writes them down. Nothing is stored, so nothing can be revoked but by
dropping the key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from queues.errors import BadSignature, Invalid
from queues.models import Json, JsonObject

PATHS = ("messages", "subscriptions", "claims")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
LIFETIME = timedelta(hours=24)  # where none is asked for

_SEPARATOR = "\\n"  # a backslash and an n, not a newline
_FORMAT = "%Y-%m-%dT%H:%M:%S"
_MEMBERS = {"paths", "methods", "expires"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedUrl:
    """What its holder has to show."""

    project: str
    paths: Sequence[str]  # full paths, sorted
    methods: Sequence[str]  # HTTP methods, sorted
    expires: str  # UTC, YYYY-MM-DDTHH:MM:SS
    signature: str  # 64 hexadecimal digits


class Signer:
    """Signs with the first of its keys and verifies with all."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = list(keys)

    def share(self, project: str, queue: str, wish: JsonObject, *, now: datetime) -> SignedUrl:
        """Sign what a request asks for: paths (names), methods, expires, each of them optional.

        Raises Invalid for other members, or values that break the rules.
        """
        unknown = sorted(set(wish) - _MEMBERS)
        if unknown:
            raise Invalid(f"There is no member {unknown[0]!r}; known are paths, methods and expires.")
        return self.sign(
            project,
            queue,
            paths=_names("paths", wish.get("paths"), PATHS) or ["messages"],
            methods=_names("methods", wish.get("methods"), METHODS) or ["GET"],
            expires=_expiry(wish.get("expires"), now),
        )

    def sign(
        self,
        project: str,
        queue: str,
        *,
        paths: Sequence[str],
        methods: Sequence[str],
        expires: datetime,
    ) -> SignedUrl:
        """Sign parts of a queue (`paths`, out of PATHS) for some methods until a time.

        Raises Invalid where there is no key, and for a project id that cannot be signed.
        """
        if not self._keys:
            raise Invalid("This service has no secret key to sign URLs with.")
        full = sorted(f"/v2/queues/{queue}/{path}" for path in paths)
        sorted_methods = sorted(methods)
        text = expires.astimezone(UTC).strftime(_FORMAT)
        try:
            message = _message(project, full, sorted_methods, text)
        except ValueError as error:
            raise Invalid("URLs cannot be signed for a project with this id.") from error
        return SignedUrl(
            project=project,
            paths=full,
            methods=sorted_methods,
            expires=text,
            signature=_signature(self._keys[0], message),
        )

    def verify(self, shown: SignedUrl, *, method: str, path: str, now: datetime) -> None:
        """Return if what somebody shows allows this method on this path now.

        Raises BadSignature.
        """
        try:
            expires = _parse(shown.expires)
            # As it was signed, however it is written now (with a Z, say).
            message = _message(shown.project, shown.paths, shown.methods, expires.strftime(_FORMAT))
        except (ValueError, OverflowError) as error:
            raise BadSignature from error
        genuine = self._is_genuine(shown.signature, message)
        if not (genuine and method in shown.methods and _covers(shown.paths, path) and now < expires):
            raise BadSignature

    def _is_genuine(self, signature: str, message: bytes) -> bool:
        given = signature.encode(errors="replace")  # a half surrogate pair is no digit either way
        found = [hmac.compare_digest(_signature(key, message).encode(), given) for key in self._keys]
        return any(found)  # of all of them, so that the time does not tell which


def _signature(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _message(project: str, paths: Sequence[str], methods: Sequence[str], expires: str) -> bytes:
    r"""Write down what is signed.

    Raises ValueError for what could be read in two ways. A project called `GET\nb`
    could otherwise sign URLs for project b: its method ends where that one's would.
    """
    parts = (",".join(sorted(paths)), ",".join(sorted(methods)), project, expires)
    text = _SEPARATOR.join(parts)
    if not project or text.count(_SEPARATOR) != len(parts) - 1:
        raise ValueError("ambiguous")
    return text.encode()


def _covers(signed: Sequence[str], path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in signed if prefix)


def _names(member: str, value: Json, known: Sequence[str]) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(name in known for name in value):
        raise Invalid(f"The {member} must be a list out of {', '.join(known)}.")
    return value


def _expiry(value: Json, now: datetime) -> datetime:
    if value is None:
        return now + LIFETIME
    try:
        if not isinstance(value, str) or value.strip().lstrip("+-").isdigit():
            raise ValueError  # the same answer as for a date that is none
        expires = _parse(value)
    except (ValueError, OverflowError) as error:
        raise Invalid("The expires must be a date and time as in ISO 8601.") from error
    if expires <= now:
        raise Invalid("The expires must be in the future.")
    return expires


def _parse(text: str) -> datetime:
    """Read a date and time, in UTC unless it says otherwise, without fractions of a second."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.astimezone(UTC).replace(microsecond=0)
