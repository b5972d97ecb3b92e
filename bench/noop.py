"""A bare falcon application behind the same gunicorn settings: it reads each request and does nothing."""

from __future__ import annotations

from collections.abc import Callable

import click
import falcon

from bench.bodies import body
from transport.settings import ApiSettings, Settings
from transport.wsgi.server import RestServer

_MESSAGE = b'{"id":"%032x","href":"/v2/queues/load/messages/0","ttl":86400,"age":0,"body":%s}'
_CLAIMED = b'{"messages":[' + b",".join(_MESSAGE % (n, body()) for n in range(10)) + b"]}"


class _Messages:
    def on_post(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        request.bounded_stream.read()
        response.status = 201
        response.data = b'{"resources":["/v2/queues/load/messages/0"]}'

    def on_delete(self, _request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        response.status = 204


class _Claims:
    def on_post(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        request.bounded_stream.read()
        response.status = 201
        response.data = _CLAIMED


class NoopServer(RestServer):
    """Everything of the server but the service."""

    def load(self) -> Callable[..., object]:
        """Return the application."""
        app = falcon.App()
        app.add_route("/v2/queues/{queue_name}/messages", _Messages())
        app.add_route("/v2/queues/{queue_name}/claims", _Claims())
        return app


@click.command()
@click.option("--bind", required=True)
@click.option("--workers", type=int, required=True)
@click.option("--threads", type=int, required=True)
def main(bind: str, workers: int, threads: int) -> None:
    """Serve until told to stop."""
    NoopServer(Settings(api=ApiSettings(bind=bind, workers=workers, threads=threads))).run()


if __name__ == "__main__":
    main()
