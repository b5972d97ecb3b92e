"""The REST application in this process, called as a server calls it, with a look into its store."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from falcon import testing

from tests.acceptance.processes import CLIENT, PROJECT
from transport.settings import EncryptionSettings, Settings, SignedUrlSettings
from transport.wiring import open_service
from transport.wsgi.app import create_app

NOW = 1_900_000_000_000  # ms; this clock stands still, so nothing expires between two looks at the store

IDENTITY = (("Client-ID", CLIENT), ("X-Project-ID", PROJECT))

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a server would make of the bytes of a request, well-formed or not."""

    method: str
    path: str  # as in the request line
    query: str = ""
    headers: Headers = IDENTITY  # in order; of one name there can be several
    body: bytes = b""

    def environ(self) -> dict[str, Any]:
        """Return the WSGI environment that gunicorn would make of it."""
        environ = testing.create_environ(method=self.method, body=b"")
        environ["RAW_URI"] = f"{self.path}?{self.query}" if self.query else self.path
        environ["PATH_INFO"] = unquote_to_bytes(self.path).decode("latin-1")
        environ["QUERY_STRING"] = self.query
        environ["wsgi.input"] = io.BytesIO(self.body)
        environ.pop("HTTP_USER_AGENT", None)
        for name, value in self.headers:
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ and key != "HTTP_HOST" else value
        return environ


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes

    def document(self) -> Any:
        """Return the body, which has to be strict JSON."""
        return strict(self.body)


def strict(text: bytes) -> Any:
    """Parse JSON as the standard has it: UTF-8, and no NaN or Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text.decode("utf-8"), parse_constant=refuse)


Dump = dict[str, list[tuple[Any, ...]]]


@dataclass
class Direct:
    """An application over a SQLite file of its own."""

    folder: Path
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / "h.db"
        self.settings = Settings.model_validate(
            {
                "store": f"sqlite:///{path}",
                "admin": True,
                "cache": {"queue_age": 0},
                "encryption": EncryptionSettings.model_validate({"keys": ["k1:" + "A" * 43 + "="]}),
                "signed_url": SignedUrlSettings.model_validate({"secret_keys": ["a secret of the tests"]}),
            }
        )
        self._service = open_service(self.settings, clock=lambda: NOW)
        self._app = create_app(self._service)
        self._look = sqlite3.connect(path, isolation_level=None)

    def close(self) -> None:
        """Let go of the file."""
        self._look.close()
        self._service.close()

    def call(self, environ: dict[str, Any]) -> Answer:
        """Call the application."""
        start = testing.StartResponseMock()
        chunks = self._app(environ, start)
        try:
            body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        assert start.status is not None
        headers = {name.lower(): value for name, value in start.headers or ()}
        return Answer(status=int(start.status[:3]), headers=headers, body=body)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: str = "",
        headers: Sequence[tuple[str, str]] = (),
        project: str = PROJECT,
    ) -> Answer:
        """Call the application with a proper request."""
        sent = [("Client-ID", CLIENT), ("X-Project-ID", project), *headers]
        if body is not None:
            sent.append(("Content-Length", str(len(body))))
        request = Request(method=method, path=path, query=query, headers=tuple(sent), body=body or b"")
        return self.call(request.environ())

    def version(self) -> int:
        """Return a number that changes whenever somebody commits a change."""
        number: int = self._look.execute("PRAGMA data_version").fetchone()[0]
        return number

    def dump(self) -> Dump:
        """Return every row of every table."""
        names = [row[0] for row in self._look.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: self._look.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}

    def restore(self, dump: Dump) -> None:
        """Make the tables what they were."""
        self._look.execute("BEGIN IMMEDIATE")
        for name, rows in dump.items():
            self._look.execute(f'DELETE FROM "{name}"')
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                self._look.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)
        self._look.execute("COMMIT")
