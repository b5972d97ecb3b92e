"""A Keystone of the tests' own: as much of v3 as trusts need, and as strict about it as the real one.

It knows users by name, hands out tokens and keeps trusts. What it is asked in a form that it
does not expect is answered with 400, so that a test fails for it.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

USER, PASSWORD = "hermod", "the password of the service"
ROLES = {"member": "1d" * 16, "reader": "2e" * 16, "admin": "3f" * 16}

Answered: TypeAlias = "tuple[int, Mapping[str, Any], Mapping[str, str]]"

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z").fullmatch


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A token."""

    user: str  # id
    project: str | None  # id; None for one that is not scoped
    roles: Sequence[str]  # names
    expires: float  # Unix seconds
    trust: str | None = None  # id of the trust that it is scoped to


@dataclass(frozen=True, kw_only=True)
class Trust:
    """A trust."""

    trustor: str  # id of a user
    trustee: str  # likewise
    project: str  # id
    roles: Sequence[str]  # names
    expires: float  # Unix seconds


class Refusal(Exception):
    """What is answered with a status of its own."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Keystone:
    """A Keystone; `serving` makes it listen."""

    clock: Callable[[], float] = time.time  # Unix seconds
    lifetime: float = 3600.0  # seconds that a token lives
    password: str = PASSWORD  # of the service's user
    trust_is_gone: int = 401  # what who asks for a token of a trust that is gone is answered
    failing: int | None = None  # a status for every answer
    hanging: threading.Event | None = None  # every answer waits for it
    meanwhile: Callable[[], None] = lambda: None  # called before a trust is made
    tokens: dict[str, Granted] = field(default_factory=dict)
    trusts: dict[str, Trust] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)  # trusts that were deleted
    asked: list[str] = field(default_factory=list)  # methods and paths, without ids
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"

    def settings(self, **others: Any) -> dict[str, Any]:
        """The section of Hermod's settings."""
        return {"auth_url": self.url, "username": USER, "password": PASSWORD, "timeout": 2.0, **others}

    def login(
        self, user: str = "alice", *, project: str | None = "p-blue", roles: Sequence[str] = ("member",)
    ) -> str:
        """Return a token of somebody's."""
        return self._grant(Granted(user=f"id of {user}", project=project, roles=roles, expires=self._end()))

    def tokens_of(self, trust_id: str) -> list[str]:
        """Return the tokens of a trust that were handed out, in this order."""
        return [text for text, granted in self.tokens.items() if granted.trust == trust_id]

    def fetched(self) -> int:
        """How many tokens of trusts were handed out."""
        return sum(granted.trust is not None for granted in self.tokens.values())

    @contextmanager
    def serving(self) -> Iterator[Keystone]:
        """Listen on a free port of the loopback interface; in the same one again, if it did before."""
        keystone = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                document = json.loads(self.rfile.read(length)) if length else None
                status, body, headers = keystone.handle(self.command, self.path, dict(self.headers), document)
                raw = b"" if status == 204 else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def do_DELETE(self) -> None:
                self.answer()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that gave up waiting."""

        with Server(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def handle(self, method: str, path: str, headers: Mapping[str, str], document: Any) -> Answered:
        """Answer a request."""
        place, _, query = path.partition("?")
        self.asked.append(f"{method} {re.sub('(?<=trusts/).*', '*', place)}")
        if self.hanging is not None:
            self.hanging.wait()
        try:
            if self.failing is not None:
                raise Refusal(self.failing)
            if not place.startswith(("/v3/auth/tokens", "/v3/OS-TRUST/trusts")):
                raise Refusal(404)
            if (method, place) == ("POST", "/v3/auth/tokens"):
                return self._authenticate(document)
            caller = self._caller(headers)
            if (method, place, query) == ("GET", "/v3/auth/tokens", "nocatalog"):
                return 200, {"token": self._shown(self._subject(headers))}, {}
            if (method, path) == ("POST", "/v3/OS-TRUST/trusts"):
                return self._trust(caller, document)
            if method == "DELETE" and path.startswith("/v3/OS-TRUST/trusts/"):
                return self._end_trust(caller, path.rpartition("/")[2])
            raise Refusal(400)
        except Refusal as refusal:
            status = refusal.status
        except (KeyError, TypeError, ValueError):  # a document of another form
            status = 400
        return status, {"error": {"code": status, "message": "No.", "title": "No"}}, {}

    def _authenticate(self, document: Any) -> Answered:
        identity, scope = document["auth"]["identity"], document["auth"]["scope"]
        user = identity["password"]["user"]
        expect(identity["methods"] == ["password"])
        expect(set(user) == {"name", "password", "domain"} and user["domain"] == {"name": "Default"})
        if (user["name"], user["password"]) != (USER, self.password):
            raise Refusal(401)
        if scope == "unscoped":
            granted = Granted(user=f"id of {USER}", project=None, roles=(), expires=self._end())
        elif "project" in scope:
            expect(scope == {"project": {"name": "service", "domain": {"name": "Default"}}})
            granted = Granted(
                user=f"id of {USER}", project="p-service", roles=("reader",), expires=self._end()
            )
        else:
            expect(set(scope) == {"OS-TRUST:trust"} and set(scope["OS-TRUST:trust"]) == {"id"})
            granted = self._of_trust(scope["OS-TRUST:trust"]["id"])
        return 201, {"token": self._shown(granted)}, {"X-Subject-Token": self._grant(granted)}

    def _of_trust(self, trust_id: str) -> Granted:
        trust = self.trusts.get(trust_id)
        if trust is None or trust.expires <= self.clock():
            raise Refusal(self.trust_is_gone)
        if trust.trustee != f"id of {USER}":
            raise Refusal(403)
        return Granted(  # who has one is taken for the trustor
            user=trust.trustor,
            project=trust.project,
            roles=trust.roles,
            expires=min(self._end(), trust.expires),
            trust=trust_id,
        )

    def _trust(self, caller: Granted, document: Any) -> Answered:
        wish = document["trust"]
        expect(
            set(wish)
            == {"trustor_user_id", "trustee_user_id", "project_id", "roles", "impersonation", "expires_at"}
        )
        names = {id_: name for name, id_ in ROLES.items()}
        roles = [names[role["id"]] for role in wish["roles"]]
        expect(wish["impersonation"] is True and bool(roles) and _MOMENT(wish["expires_at"]) is not None)
        expires = datetime.fromisoformat(wish["expires_at"]).astimezone(UTC).timestamp()
        expect(expires > self.clock())
        if wish["trustee_user_id"] != f"id of {USER}":
            raise Refusal(404)
        whole = (wish["trustor_user_id"], wish["project_id"]) == (caller.user, caller.project)
        if caller.trust is not None or not whole or not set(roles) <= set(caller.roles):
            raise Refusal(403)
        self.meanwhile()
        id_ = secrets.token_hex(16)
        self.trusts[id_] = Trust(
            trustor=caller.user,
            trustee=f"id of {USER}",
            project=wish["project_id"],
            roles=roles,
            expires=expires,
        )
        return 201, {"trust": {**wish, "id": id_}}, {}

    def _end_trust(self, caller: Granted, trust_id: str) -> Answered:
        trust = self.trusts.get(trust_id)
        if trust is None:
            raise Refusal(404)
        if caller.user != trust.trustor:
            raise Refusal(403)
        del self.trusts[trust_id]
        self.ended.append(trust_id)
        return 204, {}, {}

    def _caller(self, headers: Mapping[str, str]) -> Granted:
        granted = self.tokens.get(headers.get("X-Auth-Token", ""))
        if granted is None or granted.expires <= self.clock():
            raise Refusal(401)
        return granted

    def _subject(self, headers: Mapping[str, str]) -> Granted:
        granted = self.tokens.get(headers["X-Subject-Token"])
        if granted is None:
            raise Refusal(404)
        return granted

    def _grant(self, granted: Granted) -> str:
        text = f"gAAAA{secrets.token_urlsafe(24)}"
        self.tokens[text] = granted
        return text

    def _end(self) -> float:
        return self.clock() + self.lifetime

    def _shown(self, granted: Granted) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "methods": ["password"],
            "user": {
                "id": granted.user,
                "name": granted.user,
                "domain": {"id": "default", "name": "Default"},
            },
            "issued_at": moment(self.clock()),
            "expires_at": moment(granted.expires),
            "audit_ids": ["x"],
        }
        if granted.project is not None:
            shown["project"] = {
                "id": granted.project,
                "name": granted.project,
                "domain": {"id": "default", "name": "Default"},
            }
            shown["roles"] = [{"id": ROLES[name], "name": name} for name in granted.roles]
        return shown


def moment(instant: float) -> str:
    """Return a time (Unix seconds) as Keystone writes it."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def expect(fits: bool) -> None:
    """Refuse what has another form."""
    if not fits:
        raise Refusal(400)
