"""What every request passes before its operation, in the order of the contract, and what it leaves behind.

Authentication comes before routing, so that an unknown path tells a stranger
nothing; the checks of the headers come behind it.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import falcon
import structlog

from queues.errors import BadSignature, InvalidName, InvalidTopicName
from queues.limits import check_address
from queues.models import Address, Caller, Role
from queues.signing import SignedUrl
from transport.auth import Headers, Identity, Strategy, client_id_of, keystone_token_of, project_of, strategy
from transport.problems import FormEncoded
from transport.service import Service

_log = structlog.stdlib.get_logger("hermod.request")

_NAMES = {"queue_name": InvalidName, "topic_name": InvalidTopicName}
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
OPEN = ("/", "/v2")  # what discovery asks for, with no headers at all
REFUSAL = "hermod.refusal"  # where a request has the error with which it is refused, whatever it asks for


class Gate:
    """Falcon middleware: identity, header checks, request id, one log line."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._strategy: Strategy = strategy(service.settings.auth_strategy, service.tokens)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        """Give the request an id and establish who calls."""
        context = request.context
        context.started = time.perf_counter()
        context.request_id = f"req-{uuid.uuid4()}"
        context.operation = None
        context.caller = None
        context.error = None
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=context.request_id)
        response.set_header("X-OpenStack-Request-Id", context.request_id)
        if REFUSAL in request.env:
            raise request.env[REFUSAL]
        if request.path in OPEN or request.method == "OPTIONS":
            return
        headers: Headers = request.get_header
        if request.get_header("URL-Signature") is not None:
            context.identity = self._signed(request)
        else:
            context.identity = self._strategy.identify(headers)
        if "%2f" in request.env.get("RAW_URI", "").partition("?")[0].lower():
            raise falcon.HTTPNotFound  # the server decodes it, and it would name another path

    def process_resource(
        self,
        request: falcon.Request,
        _response: falcon.Response,
        _resource: object,
        params: dict[str, Any],
    ) -> None:
        """Check the headers of a request whose path is known."""
        if request.path in OPEN or request.method == "OPTIONS":
            return
        if (request.content_type or "").lower() == _FORM and request.content_length is not None:
            raise FormEncoded
        if not request.client_accepts(_JSON):
            raise falcon.HTTPNotAcceptable
        headers: Headers = request.get_header
        identity: Identity = request.context.identity
        client_id = client_id_of(headers, self._service.settings.wire)
        caller = Caller(
            project=project_of(identity, headers),
            client_id=client_id,
            role=identity.role,
            keystone_token=keystone_token_of(headers),
        )
        for variable, refusal in _NAMES.items():
            if variable in params:
                check_address(Address(project=caller.project, queue=params[variable]), refusal=refusal)
        request.context.caller = caller

    def process_response(
        self,
        request: falcon.Request,
        response: falcon.Response,
        _resource: object,
        _succeeded: bool,
    ) -> None:
        """Write the request's line in the log: no query, header or body, for they may be secret."""
        context = request.context
        caller: Caller | None = context.caller
        _log.info(
            "request",
            request_id=context.request_id,
            method=request.method,
            path=request.path,
            project=caller and caller.project,
            operation=context.operation,
            status=response.status_code,
            error=context.error,
            ms=round((time.perf_counter() - context.started) * 1000, 2),
        )

    def _signed(self, request: falcon.Request) -> Identity:
        """Verify a pre-signed URL: it opens its project and paths, and gives no role of its own."""

        def shown(header: str) -> str:
            return request.get_header(header) or ""

        project = shown("X-Project-ID")
        if not project:
            raise BadSignature
        self._service.signer.verify(
            SignedUrl(
                project=project,
                paths=shown("URL-Paths").split(","),
                methods=shown("URL-Methods").split(","),
                expires=shown("URL-Expires"),
                signature=shown("URL-Signature"),
            ),
            method=request.method,
            path=request.path,
            now=datetime.fromtimestamp(self._service.clock() / 1000, UTC),
        )
        return Identity(project=project, role=Role.MEMBER)
