"""What the REST tests share: a clock, stores that can fail, applications, and a client.

The tests know the service by its protocol alone. Where they look behind it, it is
to make the store fail, or to see what the store was given.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import falcon
import pymongo
import pytest
import structlog
from falcon import testing
from structlog.testing import capture_logs

from queues.errors import StoreUnavailable
from queues.models import JsonObject
from queues.ports import Driver
from storage.pooling import OpenStores
from storage.registry import connect
from tests import servers
from tests.transport.sockets import ENCODINGS, Socket
from transport.service import Service
from transport.settings import Settings
from transport.wiring import assemble
from transport.wsgi.app import create_app

Answer: TypeAlias = testing.Result
OpenApi: TypeAlias = "Callable[..., Client]"
OpenSocket: TypeAlias = Callable[..., Socket]

START = 1_795_211_967_000  # ms; 2026-11-20T21:59:27Z
PROJECT = "blue"
CLIENT = "6d0c2f0e-7a0b-4a55-9c0e-2f0d6a3b9f11"
ANOTHER_CLIENT = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
PATCH_TYPE = "application/openstack-messaging-v2.0-json-patch"
ADMIN = {"X-Roles": "admin"}
NO_BODY: Any = object()

#: The seven reserved attributes that every queue shows, at the default settings.
DEFAULTS = {
    "_max_messages_post_size": 262144,
    "_default_message_ttl": 3600,
    "_default_message_delay": 0,
    "_dead_letter_queue": None,
    "_dead_letter_queue_messages_ttl": None,
    "_max_claim_count": None,
    "_enable_encrypt_messages": False,
}

#: Every operation that belongs to this suite, except the version list, at / and at /v2.
ENDPOINTS = [
    ("GET", "/v2/"),
    ("GET", "/v2/ping"),
    ("HEAD", "/v2/ping"),
    ("GET", "/v2/health"),
    ("GET", "/v2/queues"),
    ("PUT", "/v2/queues/q1"),
    ("GET", "/v2/queues/q1"),
    ("HEAD", "/v2/queues/q1"),
    ("PATCH", "/v2/queues/q1"),
    ("DELETE", "/v2/queues/q1"),
    ("GET", "/v2/queues/q1/stats"),
    ("POST", "/v2/queues/q1/purge"),
    ("POST", "/v2/queues/q1/share"),
    ("POST", "/v2/queues/q1/messages"),
    ("GET", "/v2/queues/q1/messages"),
    ("GET", "/v2/queues/q1/messages?ids=1"),
    ("DELETE", "/v2/queues/q1/messages?ids=1"),
    ("DELETE", "/v2/queues/q1/messages?pop=1"),
    ("GET", "/v2/queues/q1/messages/1"),
    ("DELETE", "/v2/queues/q1/messages/1"),
    ("POST", "/v2/queues/q1/claims"),
    ("GET", "/v2/queues/q1/claims/1"),
    ("PATCH", "/v2/queues/q1/claims/1"),
    ("DELETE", "/v2/queues/q1/claims/1"),
]

#: A body that each endpoint with a required one accepts.
GOOD_BODIES: Mapping[tuple[str, str], Any] = {
    ("PATCH", "/v2/queues/q1"): [],
    ("POST", "/v2/queues/q1/share"): {},
    ("POST", "/v2/queues/q1/messages"): {"messages": [{"body": "hello"}]},
    ("PATCH", "/v2/queues/q1/claims/1"): {},
}


def _mongodb_uri(_folder: Path) -> str:
    """Return the URI of a database that is empty: one for all tests, since making one takes longer than a test."""
    uri = servers.mongodb_uri(Path(f"rest-{os.getpid()}"))
    with pymongo.MongoClient[JsonObject](uri) as client:
        database = client.get_default_database()
        for name in database.list_collection_names():
            database[name].delete_many({})
    return uri


#: How to name a store that belongs to a folder.
STORES: Mapping[str, Callable[[Path], str]] = {
    "memory": lambda _folder: "memory:",
    "sqlite": lambda folder: f"sqlite:///{folder}/hermod.db",
    "redis": servers.redis_uri,
    "mongodb": _mongodb_uri,
}
POOLED = "pools"  # two pools, and SQLite for the records

#: What most files run over; those with the core of the protocol run over all.
LOCAL_STORES = ["memory", "sqlite", POOLED]
CORE = {
    "test_rest_claims",
    "test_rest_dead_letters_and_delay",
    "test_rest_deletion",
    "test_rest_idempotency",
    "test_rest_message_listing",
    "test_rest_messages",
    "test_rest_queues",
    "test_rest_quirks",
    "test_rest_stats_purge",
    "test_rest_subscriptions",
}

#: For what is decided before a store is asked: once is enough.
ONE_STORE = pytest.mark.parametrize("stores", ["memory"], indirect=True)

#: For what the store of the records keeps, or where it has to fail: not over pools.
WITHOUT_POOLS = pytest.mark.parametrize("stores", ["memory", "sqlite"], indirect=True)

#: For what is about pools.
POOLS = pytest.mark.parametrize("stores", [POOLED], indirect=True)

_REQUEST_ID = re.compile(r"req-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch


class Clock:
    """The time of day, as the tests want it. Stores ask it for ms since the epoch."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


class _Breakable:
    """One half of a store whose methods fail when they are told to."""

    def __init__(self, part: object, check: Callable[[str], None]) -> None:
        self._part = part
        self._check = check

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._part, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._check(name)
            return method(*arguments, **named)

        return call


class BreakableDriver:
    """A store that works until somebody breaks it, and works again when it is mended."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._broken: set[str] | None = set()  # names of methods; None for all
        self._error: Exception = StoreUnavailable()
        self.messages: Any = _Breakable(driver.messages, self._check)
        self.records: Any = _Breakable(driver.records, self._check)
        self.transfers: Any = _Breakable(driver.transfers, self._check)

    @property
    def capabilities(self) -> Sequence[str]:
        return self._driver.capabilities

    def break_(self, *methods: str, error: Exception | None = None) -> None:
        """Let these methods fail from now on, or all."""
        self._broken = set(methods) or None
        self._error = error or StoreUnavailable()

    def mend(self) -> None:
        self._broken = set()

    def close(self) -> None:
        self._driver.close()

    def _check(self, method: str) -> None:
        if self._broken is None or method in self._broken:
            raise self._error


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that was granted."""

    path: str  # of the claim
    id: str
    messages: Sequence[dict[str, Any]]  # as answered

    def delete_path(self, index: int = 0) -> str:
        """Where a message of the claim is deleted: its href, which names the claim."""
        return str(self.messages[index]["href"])


@dataclass(frozen=True, kw_only=True)
class Client:
    """Speaks HTTP to one application, and checks in every answer what holds for all of them."""

    service: Service
    app: falcon.App[falcon.Request, falcon.Response]
    headers: Mapping[str, str | None]  # sent with each request; None leaves one out
    mount: str = ""  # script name

    def request(
        self,
        method: str,
        path: str,
        document: Any = NO_BODY,
        *,
        body: bytes = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Send a JSON document, or a body as it is; headers are sent on top of the client's own."""
        if document is not NO_BODY:
            body = json.dumps(document).encode()
        sent = {**self.headers, **(headers or {})}
        answer = testing.simulate_request(
            self.app,
            method=method,
            path=path,
            body=body,
            headers={name: value for name, value in sent.items() if value is not None},
            root_path=self.mount,
        )
        check_answer(method, answer)
        return answer

    def get(self, path: str, **named: Any) -> Answer:
        return self.request("GET", path, **named)

    def head(self, path: str, **named: Any) -> Answer:
        return self.request("HEAD", path, **named)

    def put(self, path: str, document: Any = NO_BODY, **named: Any) -> Answer:
        return self.request("PUT", path, document, **named)

    def post(self, path: str, document: Any = NO_BODY, **named: Any) -> Answer:
        return self.request("POST", path, document, **named)

    def patch(self, path: str, document: Any = NO_BODY, **named: Any) -> Answer:
        return self.request("PATCH", path, document, **named)

    def delete(self, path: str, **named: Any) -> Answer:
        return self.request("DELETE", path, **named)

    def call(self, method: str, path: str, **headers: str | None) -> Answer:
        """Send what is fine, with the body that the endpoint needs, but for these headers."""
        document = GOOD_BODIES.get((method, path), NO_BODY)
        content_type = {"Content-Type": PATCH_TYPE} if document == [] else {}
        return self.request(method, path, document, headers={**content_type, **headers})

    def sending(self, **headers: str | None) -> Client:
        """This client with other headers; `X_Roles` stands for `X-Roles`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    def of(self, project: str) -> Client:
        return replace(self, headers={**self.headers, "X-Project-ID": project})

    def another(self) -> Client:
        """Somebody else of the same project."""
        return replace(self, headers={**self.headers, "Client-ID": str(uuid.uuid4())})

    # What many tests need before they come to their point. Each expects success.

    def create_queue(self, queue: str = "q1", metadata: Mapping[str, Any] | None = None) -> None:
        assert self.put(f"/v2/queues/{queue}", metadata or {}).status_code == 201

    def change(self, queue: str, *operations: Mapping[str, Any]) -> Answer:
        """PATCH a queue's metadata."""
        return self.patch(f"/v2/queues/{queue}", list(operations), headers={"Content-Type": PATCH_TYPE})

    def post_messages(self, queue: str, *messages: Mapping[str, Any]) -> list[str]:
        """Post messages and return their ids."""
        answer = self.post(f"/v2/queues/{queue}/messages", {"messages": list(messages)})
        assert answer.status_code == 201, answer.text
        return ids_of(answer)

    def post_bodies(self, *bodies: Any, queue: str = "q1", **members: Any) -> list[str]:
        """Post a message for each body, all with the same ttl or delay, and return their ids."""
        return self.post_messages(queue, *({"body": body, **members} for body in bodies))

    def claim(self, queue: str = "q1", *, limit: int | None = None, **terms: int) -> Claim:
        query = "" if limit is None else f"?limit={limit}"
        answer = self.post(f"/v2/queues/{queue}/claims{query}", terms)
        assert answer.status_code == 201, answer.text
        path = answer.headers["location"]
        return Claim(path=path, id=path.rpartition("/")[2], messages=answer.json["messages"])

    def listed(self, queue: str = "q1", query: str = "echo=true&limit=20") -> list[Any]:
        """Return the bodies that a listing shows: by default all but the claimed."""
        return bodies_of(self.get(f"/v2/queues/{queue}/messages?{query}"))

    def stats(self, queue: str = "q1") -> tuple[int, int]:
        """Return how many messages are free and claimed."""
        counted = self.get(f"/v2/queues/{queue}/stats").json["messages"]
        return counted["free"], counted["claimed"]

    def queue_names(self) -> list[str]:
        return [queue["name"] for queue in self.get("/v2/queues?limit=20").json["queues"]]

    def metadata(self, queue: str = "q1") -> dict[str, Any]:
        """Return a queue's metadata without the reserved defaults."""
        shown = self.get(f"/v2/queues/{queue}").json
        return {key: value for key, value in shown.items() if DEFAULTS.get(key, NO_BODY) != value}


def ids_of(posted: Answer) -> list[str]:
    return [path.rpartition("/")[2] for path in posted.json["resources"]]


def bodies_of(answer: Answer) -> list[Any]:
    return [message["body"] for message in answer.json["messages"]]


def next_link(answer: Answer) -> str:
    """Return where the next page is."""
    [link] = answer.json["links"]
    assert link["rel"] == "next"
    return str(link["href"])


def pages(client: Client, path: str) -> Iterator[Answer]:
    """Follow the links from a page until there is none."""
    while True:
        page = client.get(path)
        assert page.status_code == 200, page.text
        yield page
        if not page.json["links"]:
            return
        path = next_link(page)


def assert_problem(answer: Answer, status: int, title: str) -> None:
    assert (answer.status_code, answer.json["title"]) == (status, title), answer.text


def check_answer(method: str, answer: Answer) -> None:
    """What the protocol says of every answer."""
    status = answer.status_code
    assert _REQUEST_ID(answer.headers.get("x-openstack-request-id", "")), "section 3.1: request id"
    assert status != 500, answer.text
    assert answer.headers.get("location", "/v2/").startswith("/v2/"), "section 1: Location is a path"
    if status == 204 or method == "HEAD":
        assert not answer.content, "section 3.1: no body"
    elif status == 201 and not answer.content:
        assert answer.headers["content-length"] == "0"
    elif status >= 400 and status != 406:  # who does not accept JSON may get another form
        _check_problem(answer)
    elif answer.content and status != 406:
        assert answer.headers["content-type"] in ("application/json", "application/json-home")


def _check_problem(answer: Answer) -> None:
    document = answer.json
    bare = document["title"] in ("404 Not Found", "405 Method Not Allowed")
    assert set(document) == ({"title"} if bare else {"title", "description"}), "section 3.2: error body"
    assert all(isinstance(text, str) and text for text in document.values())
    assert answer.headers["content-type"] == "application/json"
    assert "Accept" in answer.headers["vary"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class BreakableStores:
    """The stores of the pools, which break and are mended one by one."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._stores = OpenStores(timeout=5.0, clock=clock)
        self._drivers: dict[str, BreakableDriver] = {}

    def open(self, uri: str, options: JsonObject) -> BreakableDriver:
        opened = self._stores.open(uri, options)
        return self._drivers.setdefault(uri, BreakableDriver(opened))

    def retain(self, uris: Collection[str]) -> None:
        self._stores.retain(uris)

    def close(self) -> None:
        self._stores.close()

    def of(self, uri: str) -> BreakableDriver:
        """Return a store that has been opened."""
        return self._drivers[uri]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the core over servers too, but for tests that say themselves what they run over."""
    chosen = any("stores" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "stores" in metafunc.fixturenames and not chosen:
        core = metafunc.module.__name__.rpartition(".")[2] in CORE
        metafunc.parametrize("stores", [*STORES, POOLED] if core else LOCAL_STORES, indirect=True)


@pytest.fixture
def stores(request: pytest.FixtureRequest) -> str:
    """What the queues of a test live in: one store, or two pools."""
    return str(request.param)


@pytest.fixture
def store_uri(stores: str, tmp_path: Path) -> str:
    """The store of the records, and of the queues where there are no pools."""
    return STORES["sqlite" if stores == POOLED else stores](tmp_path)


@pytest.fixture
def driver(store_uri: str, clock: Clock) -> Iterator[BreakableDriver]:
    """The opened store, which every application of a test shares."""
    opened = BreakableDriver(connect(store_uri, timeout=5.0, clock=clock))
    yield opened
    opened.close()


@pytest.fixture
def pool_stores(clock: Clock) -> Iterator[BreakableStores]:
    """The stores of the pools, which every application of a test shares."""
    opened = BreakableStores(clock)
    yield opened
    opened.close()


@pytest.fixture
def open_api(
    driver: BreakableDriver, stores: str, store_uri: str, pool_stores: BreakableStores, tmp_path: Path
) -> OpenApi:
    """Build an application with other settings than the defaults, and return a client of it."""

    def build(**settings: Any) -> Client:
        pooling = {"pooling": True} if stores == POOLED else {}
        wanted = Settings(store=store_uri, **{**pooling, **settings})
        turns = itertools.cycle([0.25, 0.75])
        service = assemble(wanted, cast(Driver, driver), stores=pool_stores, draw=lambda: next(turns))
        if stores == POOLED and not service.pools.all():
            for number in (1, 2):
                service.pools.put(f"p{number}", uri=f"sqlite:///{tmp_path}/pool{number}.db", weight=1)
        identity = {"Client-ID": CLIENT, "X-Project-ID": PROJECT}
        return Client(service=service, app=create_app(service), headers=identity)

    return build


@pytest.fixture
def api(open_api: OpenApi) -> Client:
    """A client of an application at the default settings."""
    return open_api()


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    """What a websocket client writes."""
    return str(request.param)


@pytest.fixture
def open_socket(open_api: OpenApi, encoding: str) -> OpenSocket:
    """Build a service with other settings than the defaults, and return a websocket client of it."""

    def build(**settings: Any) -> Socket:
        api = open_api(**settings)
        return Socket(api.service, api.headers, encoding=encoding)

    return build


@pytest.fixture
def socket(open_socket: OpenSocket) -> Socket:
    """A websocket client of a service at the default settings."""
    return open_socket()


@pytest.fixture
def full_api(open_api: OpenApi) -> Client:
    """An operator's client of an application that serves everything."""
    api = open_api(admin=True, signed_url={"secret_keys": ["a key of the tests"]})
    return api.sending(X_Roles="admin")


@pytest.fixture
def broken_api(full_api: Client, driver: BreakableDriver) -> Client:
    """An operator's client of an application whose store has ceased to answer."""
    driver.break_()
    return full_api


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Return all that has been logged, at any level, before anything is hidden by the log itself."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as entries:
        structlog.get_config()["processors"].insert(0, structlog.processors.format_exc_info)  # tracebacks too
        yield lambda: f"{entries} {caplog.text}"
