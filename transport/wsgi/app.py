"""The falcon application: routes, middleware, and how errors are answered."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import Any

import falcon

from queues.errors import HermodError, SubscriberTaken
from queues.service.waiting import Vigil
from transport.dispatch import attempt, dispatch, explain
from transport.service import Service
from transport.wsgi import answers
from transport.wsgi.gate import Gate
from transport.wsgi.home import VERSIONS, home
from transport.wsgi.request import RestRequest
from transport.wsgi.routes import ByIds, Choice, routes

_EXPOSED_HEADERS = (
    "X-Auth-Token",
    "X-Subject-Token",
    "X-Service-Token",
    "X-OpenStack-Request-ID",
)


def create_app(service: Service) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the REST application of an opened service; it opens and closes nothing itself."""
    middleware: list[Any] = [Gate(service)]
    if origins := service.settings.cors.allowed_origins:
        allowed = "*" if "*" in origins else origins
        middleware.append(falcon.CORSMiddleware(allow_origins=allowed, expose_headers=_EXPOSED_HEADERS))
    app = falcon.App(middleware=middleware)
    app.req_options.keep_blank_qs_values = True
    app.add_error_handler(HermodError, _answer_error)
    for path in ("/", "/v2"):
        app.add_route(path, _Document(VERSIONS, status=300))
    home_document = home(admin=service.settings.admin, pooling=service.settings.pooling)
    app.add_route("/v2/", _Document(home_document, media_type="application/json-home", max_age=86400))
    settings = service.settings
    for path, methods in routes(admin=settings.admin, pooling=settings.pooling).items():
        app.add_route(path, _Resource(service, methods))
    return app


class _Document:
    """A document that never changes."""

    def __init__(
        self,
        value: Mapping[str, Any],
        *,
        status: int = 200,
        media_type: str = "application/json",
        max_age: int | None = None,
    ) -> None:
        self._value = value
        self._status = status
        self._media_type = media_type
        self._max_age = max_age

    def on_get(self, _request: falcon.Request, response: falcon.Response) -> None:
        """Answer it."""
        answers.document(response, self._value, self._status)
        response.content_type = self._media_type
        if self._max_age is not None:
            response.cache_control = [f"max-age={self._max_age}"]


class _Resource:
    """The endpoints of one path, as falcon wants to find them: `on_get` and so on."""

    def __init__(self, service: Service, methods: Mapping[str, Choice]) -> None:
        for method, choice in methods.items():
            setattr(self, f"on_{method.lower()}", partial(_serve, service, choice))


def _serve(
    service: Service, choice: Choice, http: falcon.Request, response: falcon.Response, **path: str
) -> None:
    request = RestRequest(http, service, http.context.caller, path)
    if isinstance(choice, ByIds):
        endpoint = choice.with_ids if request.texts("ids") else choice.without
    else:
        endpoint = choice
    http.context.operation = endpoint.operation.name
    reply = dispatch(service, endpoint.operation, request.caller, partial(endpoint.read, request))
    if isinstance(reply.value, Vigil):
        waits = partial(reply.value.wait, partial(_hung_up, http.env.get("gunicorn.socket")))
        reply = attempt(endpoint.operation.name, waits)
    if reply.problem is not None:
        http.context.error = reply.problem.code
        answers.problem(response, reply.problem)
        if reply.problem.code == SubscriberTaken.code:
            response.set_header("Location", http.path)
    else:
        endpoint.answer(request, response, reply.value)


def _hung_up(client: socket.socket | None) -> bool:
    """Whether a client has closed its connection, as far as it can be seen."""
    if client is None or isinstance(client, ssl.SSLSocket):
        return False
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answer_error(
    http: falcon.Request, response: falcon.Response, error: HermodError, _params: dict[str, Any]
) -> None:
    """Answer what went wrong before there was an operation."""
    found = explain(f"{http.method} {http.path}", error)
    http.context.error = found.code
    answers.problem(response, found)
