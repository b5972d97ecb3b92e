"""Errors as a client sees them: one table for every transport.

An error is looked up by its class, then by the classes it descends from. The
titles are those of the Zaqar v2 contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from queues import errors
from queues.errors import HermodError


class RequestError(HermodError):
    """The request cannot be understood."""

    code = "request-error"


class MalformedBody(RequestError):
    """The request body could not be parsed."""

    code = "malformed-body"


class InvalidParameter(RequestError):
    """A parameter of the query has a value of the wrong type."""

    code = "invalid-parameter"


class MissingClientId(RequestError):
    """The header Client-Id is required."""

    code = "missing-client-id"


class WrongClientId(RequestError):
    """The header Client-Id must be a UUID."""

    code = "wrong-client-id"


class MissingProject(RequestError):
    """The header X-Project-Id is required: it names the project that the request is for."""

    code = "missing-project"


class EmptyProject(RequestError):
    """The header X-Project-Id must not be empty."""

    code = "empty-project"


class FormEncoded(RequestError):
    """A body of type application/x-www-form-urlencoded is not accepted; use application/json."""

    code = "form-encoded"


class UnsupportedMediaType(RequestError):
    """The Content-Type must be application/openstack-messaging-v2.0-json-patch."""

    code = "unsupported-media-type"


class FlavorRefused(RequestError):
    """The flavor cannot be like that."""

    code = "flavor-refused"


class FlavorChangeRefused(RequestError):
    """The flavor cannot be changed like that."""

    code = "flavor-change-refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What a client is told."""

    status: int  # as in HTTP
    title: str  # a constant of the contract
    description: str | None  # a sentence; None where the contract has the title only
    code: str  # names the error for machines, in logs
    headers: Mapping[str, str] = field(default_factory=dict)  # to be sent along


_TABLE: Mapping[type[HermodError], tuple[int, str]] = {
    HermodError: (500, "Internal server error"),
    errors.Invalid: (400, "Invalid API request"),
    errors.InvalidName: (400, "Invalid queue identification"),
    errors.InvalidTopicName: (400, "Invalid topic identification"),
    errors.InvalidChange: (400, "Invalid request body"),
    errors.PoolsDiffer: (400, "Unable to create pool"),
    errors.NotFound: (404, "Not found"),
    errors.Conflict: (409, "Resource conflict"),
    errors.Refused: (403, "Unable to delete"),
    errors.ClaimNotHeld: (400, "Unable to delete"),
    errors.Denied: (403, "Not authorized"),
    errors.Unauthenticated: (401, "Unauthorized"),
    errors.BadSignature: (404, "404 Not Found"),
    errors.QuotaExceeded: (403, "Quota exceeded"),
    errors.TooManyRequests: (429, "Too many requests"),
    errors.Overloaded: (503, "Service temporarily unavailable"),
    errors.TrustsUnavailable: (503, "Service temporarily unavailable"),
    errors.Unsealable: (503, "Service temporarily unavailable"),
    errors.StoreError: (503, "Service temporarily unavailable"),
    MalformedBody: (400, "Invalid request body"),
    InvalidParameter: (400, "Invalid parameter"),
    MissingClientId: (400, "Missing header value"),
    WrongClientId: (400, "Wrong UUID value"),
    MissingProject: (400, "Project-Id Missing"),
    EmptyProject: (400, "Empty project header not allowed"),
    FormEncoded: (400, "Invalid Content-Type"),
    FlavorRefused: (400, "Unable to create"),
    FlavorChangeRefused: (400, "updatefail"),
    UnsupportedMediaType: (415, "415 Unsupported Media Type"),
}

_RETRY_AFTER = 2  # seconds


def problem_of(error: HermodError) -> Problem:
    """Return what a client is told of an error."""
    status, title = next(_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE)
    description: str | None = str(error)
    headers = {}
    if status == 503:
        # What exactly failed is for the operator's log.
        description = f"The request cannot be served now. Please retry in {_RETRY_AFTER} seconds."
        headers["Retry-After"] = str(_RETRY_AFTER)
    elif isinstance(error, errors.TooManyRequests):
        headers["Retry-After"] = str(error.seconds)
    elif status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="hermod"'
    elif isinstance(error, errors.BadSignature):
        description = None  # as for any unknown path
    return Problem(status=status, title=title, description=description, code=error.code, headers=headers)


INTERNAL = Problem(
    status=500,
    title="Internal server error",
    description="Something unexpected happened; the log of the service says what, under the request id.",
    code="internal",
)
