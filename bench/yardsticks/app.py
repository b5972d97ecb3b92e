"""A bare falcon application behind the same gunicorn settings, but none of Hermod's workers.

It reads each request and does nothing, or for each post makes one Lua call on Redis, one `insert_one` on MongoDB, or one
commit on SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import click
import falcon

from bench.bodies import body
from bench.conditions import BODY_SIZE
from bench.yardsticks.mongodb import Documents
from bench.yardsticks.redis import Lua
from bench.yardsticks.sqlite import Rows
from transport.settings import ApiSettings, Settings
from transport.wsgi.server import RestServer

_MESSAGE = b'{"id":"%032x","href":"/v2/queues/load/messages/0","ttl":86400,"age":0,"body":%s}'
_CLAIMED = b'{"messages":[' + b",".join(_MESSAGE % (n, body()) for n in range(10)) + b"]}"


class Appending(Protocol):
    """An engine that takes a document."""

    def append(self, document: bytes, /) -> int:
        """Append it, and return its number."""


class _Messages:
    def __init__(self, store: Appending | None) -> None:
        self._store = store

    def on_post(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        document = request.bounded_stream.read()
        place = self._store.append(document) if self._store else 0
        response.status = 201
        response.data = b'{"resources":["/v2/queues/load/messages/%d"]}' % place

    def on_delete(self, _request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        response.status = 204


class _Claims:
    def on_post(self, request: falcon.Request, response: falcon.Response, **_path: str) -> None:
        request.bounded_stream.read()
        response.status = 201
        response.data = _CLAIMED


#: What each post is appended to, by the name of the option.
_ENGINES: Mapping[str, Callable[[str, int], Appending]] = {"redis": Lua, "mongodb": Documents, "sqlite": Rows}


class BareServer(RestServer):
    """Nothing of the server but the settings that it gives gunicorn."""

    def __init__(self, settings: Settings, open_store: Callable[[], Appending | None]) -> None:
        self._open_store = open_store
        super().__init__(settings)

    def options(self) -> Mapping[str, object]:
        """Return the options, with gunicorn's own worker."""
        return {**super().options(), "worker_class": "gthread"}

    def load(self) -> Callable[..., object]:
        """Return the application."""
        app = falcon.App()
        app.add_route("/v2/queues/{queue_name}/messages", _Messages(self._open_store()))
        app.add_route("/v2/queues/{queue_name}/claims", _Claims())
        return app


@click.command()
@click.option("--bind", required=True)
@click.option("--workers", type=int, required=True)
@click.option("--threads", type=int, required=True)
@click.option("--redis", metavar="URI")
@click.option("--mongodb", metavar="URI")
@click.option("--sqlite", metavar="URI")
def main(bind: str, workers: int, threads: int, **stores: str | None) -> None:
    """Serve until told to stop."""

    def open_store() -> Appending | None:
        for name, uri in stores.items():
            if uri:
                return _ENGINES[name](uri, BODY_SIZE)
        return None

    api = ApiSettings(bind=bind, workers=workers, threads=threads)
    BareServer(Settings(api=api), open_store).run()


if __name__ == "__main__":
    main()
