"""The REST application over any store, by a clock that stands still, and what it answers to a story."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

from falcon import testing

from tests.acceptance.direct import Request
from tests.releases.story import Ask, Step, Wait
from transport.settings import EncryptionSettings, Settings
from transport.wiring import open_service
from transport.wsgi.app import create_app

NOW = 1_900_000_000_000  # ms

#: Ids of messages and claims have 32 hexadecimal digits, those of subscriptions 24.
_ID = re.compile(r"\b(?:[0-9a-f]{32}|[0-9a-f]{24})\b")

#: Headers that are not the same twice.
_VOLATILE = {"date", "x-openstack-request-id", "x-request-id"}

Exchange = dict[str, Any]


class Application:
    """Answers requests at a moment that only the story moves on."""

    def __init__(self, uri: str, now: int = NOW) -> None:
        self.now = now
        settings = Settings(
            store=uri,
            encryption=EncryptionSettings.model_validate({"keys": ["k1:" + "A" * 43 + "="]}),
        )
        self._service = open_service(settings, clock=lambda: self.now)
        self._app = create_app(self._service)

    def close(self) -> None:
        """Let go of the store."""
        self._service.close()

    def answer(self, ask: Ask, names: dict[str, str]) -> Exchange:
        """Return a request and its answer as they are recorded; `names` are the ids that the story names."""
        path = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], ask.path)
        body = b"" if ask.body is None else json.dumps(ask.body).encode()
        headers = {"Client-ID": ask.client, "X-Project-ID": ask.project, **ask.headers}
        if body:
            headers["Content-Length"] = str(len(body))
        request = Request(
            method=ask.method, path=path, query=ask.query, headers=tuple(headers.items()), body=body
        )
        start = testing.StartResponseMock()
        data = b"".join(self._app(request.environ(), start))
        shown = {name.lower(): value for name, value in start.headers or ()}
        if ask.name:
            places = [value for name, value in shown.items() if name == "location"]
            names[ask.name] = _ID.findall(" ".join([*places, data.decode()]))[0]
        return {
            "request": {**asdict(ask), "path": path},
            "status": int((start.status or "0")[:3]),
            "headers": {name: value for name, value in sorted(shown.items()) if name not in _VOLATILE},
            "body": json.loads(data) if data else None,
        }

    def tell(self, story: Iterable[Step], names: dict[str, str]) -> list[Exchange]:
        """Go through a story, and return its exchanges."""
        exchanges = []
        for step in story:
            if isinstance(step, Wait):
                self.now += step.milliseconds
            else:
                exchanges.append(self.answer(step, names))
        return exchanges


@contextmanager
def application(uri: str, now: int = NOW) -> Iterator[Application]:
    """Open the application for a block."""
    with closing(Application(uri, now)) as opened:
        yield opened


def comparable(exchanges: list[Exchange]) -> list[Exchange]:
    """Return exchanges with numbers in place of ids, in the order in which they come, for those are drawn."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"#{len(numbers)}")

    result: list[Exchange] = json.loads(_ID.sub(number, json.dumps(exchanges)))
    return result
