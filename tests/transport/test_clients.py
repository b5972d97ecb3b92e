"""The clients that are out there, unmodified, against a real server. Section 19.

One server process serves the whole module; each test has a project of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import noauth
from keystoneauth1.session import Session
from openstack.connection import Connection
from openstack.exceptions import NotFoundException
from openstack.message.v2.claim import Claim
from zaqarclient.queues.v2.client import Client as ZaqarClient
from zaqarclient.transport import errors

pytestmark = [
    # Of the SDK's own making: it still uses what it is going to remove.
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
]

START_LIMIT = 30.0  # seconds
STOP_LIMIT = 15.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server process that answers."""

    port: int
    log: Path  # what it wrote to standard error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 300
        except OSError:
            return False


def wait_until_it_answers(process: subprocess.Popen[bytes], server: Server) -> None:
    end = time.monotonic() + START_LIMIT
    while not answers(server.port):
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"The server did not start:\n{server.log.read_text()}")
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """Run a server on a store in a folder."""
    server = Server(port=free_port(), log=folder / "log")
    command = [sys.executable, "-m", "transport", "api", "--admin", "--bind", f"127.0.0.1:{server.port}"]
    command += ["--store", f"sqlite:///{folder}/hermod.db"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HERMOD_")}
    environ |= {
        "HERMOD_SIGNED_URL_SECRET_KEYS": "a key of the tests",
        "HERMOD_LOG_LEVEL": "debug",
        **settings,
    }
    with server.log.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            wait_until_it_answers(process, server)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def project() -> str:
    return uuid.uuid4().hex


def bodies(messages: Iterable[Any]) -> list[Any]:
    return [message.body for message in messages]


# --- python-zaqarclient, section 19.1


def zaqar_client(server: Server, project: str, backend: str = "noauth", **options: Any) -> ZaqarClient:
    auth = {"backend": backend, "options": {"os_project_id": project, **options}}
    return ZaqarClient(server.url, conf={"auth_opts": auth})


class Operator(ZaqarClient):  # type: ignore[misc]
    """A client that says it is an operator, which this one has no option for."""

    def _request_and_transport(self) -> tuple[Any, Any]:
        request, transport = super()._request_and_transport()
        request.headers["X-Roles"] = "admin"
        return request, transport


@pytest.fixture
def zaqar(server: Server, project: str) -> ZaqarClient:
    return zaqar_client(server, project)


@pytest.fixture
def queue(zaqar: ZaqarClient) -> Any:
    """A queue that exists."""
    return zaqar.queue("q1", force_create=True)


def ids_of(posted: dict[str, Any]) -> list[str]:
    return [path.rpartition("/")[2] for path in posted["resources"]]


def post(queue: Any, *bodies: Any) -> list[str]:
    return ids_of(queue.post([{"body": body, "ttl": 300} for body in bodies]))


def test_zaqarclient_asks_whether_anybody_is_there(zaqar):
    assert zaqar.ping() is True
    assert zaqar.homedoc()["resources"]["rel/queue"]["href-template"] == "/v2/queues/{queue_name}"


def test_zaqarclient_asks_for_health(server, zaqar, project):
    operator = Operator(server.url, conf=zaqar.conf)

    assert operator.health()["storage_reachable"] is True
    with pytest.raises(errors.ForbiddenError):
        zaqar.health()


def test_zaqarclient_manages_pools_and_flavors(tmp_path, project):
    with serving(tmp_path, HERMOD_POOLING="true") as server:
        auth = {"backend": "noauth", "options": {"os_project_id": project}}
        operator = Operator(server.url, conf={"auth_opts": auth})
        uris = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("p1", "p2")}

        first = operator.pool("p1", uri=uris["p1"], weight=10, options={"timeout": 2})
        second = operator.pool("p2", uri=uris["p2"], weight=5)
        assert first.get() == {
            "href": "/v2/pools/p1",
            "name": "p1",
            "uri": uris["p1"],
            "weight": 10,
            "flavor": None,
        }
        second.update({"weight": 7})
        found = [(pool.name, pool.weight, pool.options) for pool in operator.pools(detailed=True)]
        assert found == [("p1", 10, {"timeout": 2}), ("p2", 7, {})]
        with pytest.raises(errors.ConflictError):
            operator.pool("p3", uri=uris["p1"], weight=1)

        gold = operator.flavor("gold", pool_list=["p1"])
        assert gold.get()["pool_list"] == ["p1"]
        gold.update({"pool_list": ["p2"]})
        assert [flavor.name for flavor in operator.flavors(limit=5)] == ["gold"]
        queue = operator.queue("q1", force_create=True)
        queue.post({"body": "hello", "ttl": 300})
        assert bodies(queue.messages(echo=True)) == ["hello"]
        with pytest.raises(errors.ForbiddenError):
            first.delete()
        queue.delete()
        gold.delete()
        first.delete()
        second.delete()
        assert list(operator.pools()) == []
        assert list(operator.flavors()) == []


def test_f16_zaqarclient_asks_whether_a_queue_exists(zaqar):
    queue = zaqar.queue("q1")
    assert queue.exists() is False

    queue.ensure_exists(force_create=True)

    assert queue.exists() is True
    queue.delete()
    assert queue.exists() is False


def test_zaqarclient_lists_queues(zaqar):
    for number in range(12):
        zaqar.queue(f"q{number:02}", force_create=True)

    page, count = zaqar.queues(with_count=True, detailed=True)
    names = [queue.name for queue in page]
    streamed = [queue.name for queue in zaqar.queues(limit=5)[0].stream()]

    assert (count, names) == (12, [f"q{number:02}" for number in range(10)])
    assert streamed == [f"q{number:02}" for number in range(12)]


def test_zaqarclient_counts_no_queues_where_there_are_none(zaqar):
    queues, count = zaqar.queues(with_count=True)

    assert (list(queues), count) == ([], None)


def test_zaqarclient_replaces_metadata(zaqar, queue):
    queue.metadata(new_meta={"colour": "red", "_default_message_ttl": 100})
    queue.metadata(new_meta={"colour": "blue", "size": 5})

    shown = zaqar.queue("q1").metadata()
    own = {key: shown[key] for key in shown if not key.startswith("_")}

    assert own == {"colour": "blue", "size": 5}
    assert shown["_default_message_ttl"] == 3600
    queue.metadata(new_meta={})
    assert "colour" not in zaqar.queue("q1").metadata()


def test_zaqarclient_is_told_that_a_queue_is_missing(zaqar):
    with pytest.raises(errors.ResourceNotFound):
        zaqar.queue("nowhere").metadata(new_meta={"colour": "red"})


def test_zaqarclient_posts_and_reads_messages(queue):
    ids = post(queue, {"any": "json"}, "é", None)

    assert queue.message(ids[0]).body == {"any": "json"}
    assert queue.message(ids[0]).ttl == 300
    assert bodies(queue.messages(*ids[1:])) == ["é", None]
    assert bodies(queue.messages()) == []
    assert bodies(queue.messages(echo=True)) == [{"any": "json"}, "é", None]
    with pytest.raises(errors.ResourceNotFound):
        queue.message("f" * 32)


def test_zaqarclient_streams_all_messages(queue):
    post(queue, *range(25))

    assert bodies(queue.messages(echo=True)) == list(range(10))
    assert bodies(queue.messages(echo=True, limit=20)) == list(range(20))
    assert bodies(queue.messages(echo=True, include_claimed=True, limit=7).stream()) == list(range(25))


def test_zaqarclient_deletes_messages(queue):
    ids = post(queue, *"abcd")

    queue.message(ids[0]).delete()
    queue.delete_messages(*ids[1:3])
    queue.delete_messages(*ids[1:3])

    assert bodies(queue.messages(echo=True)) == ["d"]


def test_zaqarclient_takes_messages_out(queue):
    post(queue, *range(5))

    assert bodies(queue.pop()) == [0]
    assert bodies(queue.pop(3)) == [1, 2, 3]
    assert [message.claim_count for message in queue.pop(20)] == [0]
    assert bodies(queue.pop()) == []


def test_f18_zaqarclient_claims_without_arguments(queue):
    post(queue, *range(12))

    claim = queue.claim()

    assert bodies(claim) == list(range(10))
    assert claim.ttl == 300


def test_zaqarclient_works_through_a_claim(queue):
    post(queue, *range(5))
    claim = queue.claim(ttl=100, grace=60, limit=3)
    first, second, _ = list(claim)
    assert {first.claim_id, second.claim_id} == {claim.id}

    first.delete()
    claim.update(ttl=600, grace=60)

    again = queue.claim(id=claim.id)
    assert bodies(again) == [1, 2]
    assert (again.ttl, again.age) == (600, 0)
    second.href = second.href.partition("?")[0]  # as if it were not claimed
    with pytest.raises(errors.ForbiddenError):
        second.delete()
    claim.delete()
    assert bodies(queue.messages(echo=True)) == [1, 2, 3, 4]
    with pytest.raises(errors.ResourceNotFound):
        _ = again.age


def test_zaqarclient_finds_nothing_to_claim(queue):
    claim = queue.claim(ttl=100, grace=60)

    assert (claim.id, list(claim)) == (None, [])


def test_zaqarclient_is_told_what_was_wrong(queue):
    with pytest.raises(errors.MalformedRequest) as refused:
        queue.post([{"body": 1, "ttl": 5}])

    assert "Invalid API request" in str(refused.value)
    assert "ttl" in str(refused.value)


def test_zaqarclient_reads_stats_and_purges(queue):
    post(queue, "a", "b", "c")
    queue.claim(limit=1)

    stats = queue.stats["messages"]
    assert (stats["free"], stats["claimed"], stats["total"]) == (2, 1, 3)

    queue.purge(resource_types=["subscriptions"])
    assert queue.stats["messages"]["total"] == 3
    queue.purge()
    assert queue.stats["messages"] == {"free": 0, "claimed": 0, "total": 0}


def test_zaqarclient_signs_a_url_that_another_one_uses(server, queue, project):
    post(queue, "a", "b", "c")
    signed = queue.signed_url(paths=["messages"], methods=["GET", "DELETE"], ttl_seconds=600)

    options = {name: signed[name] for name in ("paths", "methods", "expires", "signature")}
    guest = zaqar_client(server, project, backend="signed-url", **options).queue("q1", auto_create=False)

    assert bodies(guest.messages()) == ["a", "b", "c"]
    assert bodies(guest.pop(2)) == ["a", "b"]
    with pytest.raises(errors.ResourceNotFound):
        guest.post([{"body": "d", "ttl": 60}])
    with pytest.raises(errors.ResourceNotFound):
        _ = guest.stats


def test_zaqarclient_without_a_project_has_one_all_the_same(server):
    client = ZaqarClient(server.url, conf={"auth_opts": {"backend": "noauth", "options": {}}})

    assert client.ping() is True


# --- openstacksdk, section 19.2


class InProject(noauth.NoAuth):
    """No authentication, in a project; of itself the SDK would send an empty one."""

    def __init__(self, endpoint: str, project: str) -> None:
        super().__init__(endpoint=endpoint)
        self.project = project

    def get_project_id(self, session: Session) -> str:
        return self.project


def sdk_connection(server: Server, project: str, endpoint: str) -> Connection:
    session = Session(auth=InProject(server.url, project))
    return Connection(session=session, message_endpoint_override=endpoint)


def test_zaqarclient_subscribes(zaqar, queue):
    made = zaqar.subscription("q1", subscriber="http://hook.example.org/", ttl=600, options={"a": 1})
    assert (made.ttl, made.options, made.confirmed, made.age) == (600, {"a": 1}, False, 0)
    zaqar.subscription("q1", subscriber="mailto:somebody@example.org")

    found = {each.id: each for each in zaqar.subscriptions("q1")}
    assert len(found) == 2
    assert found[made.id].subscriber == "http://hook.example.org/"
    made.update({"ttl": 900, "subscriber": "http://hook.example.org/2"})
    again = zaqar.subscription("q1", id=made.id)
    assert (again.ttl, again.subscriber) == (900, "http://hook.example.org/2")
    made.delete()
    with pytest.raises(errors.ResourceNotFound):
        zaqar.subscription("q1", id=made.id)


def test_openstacksdk_subscribes(sdk):
    made = sdk.create_subscription("q1", subscriber="http://hook.example.org/", ttl=600)
    (found,) = sdk.subscriptions("q1")
    assert (found.id, found.ttl) == (made.subscription_id, 600)
    assert sdk.get_subscription("q1", found.id).subscriber == "http://hook.example.org/"
    sdk.delete_subscription("q1", found.id)

    assert list(sdk.subscriptions("q1")) == []


@pytest.fixture
def sdk(server: Server, project: str) -> Any:
    """The SDK's idea of a message service, found by its version list."""
    return sdk_connection(server, project, server.url).message


def sdk_post(sdk: Any, *bodies: Any) -> list[str]:
    return ids_of({"resources": sdk.post_message("q1", [{"body": body, "ttl": 300} for body in bodies])})


@pytest.mark.parametrize("path", ["", "/", "/v2"])
def test_openstacksdk_finds_the_service(server, project, path):
    """By an endpoint with the version or without, section 8."""
    sdk = sdk_connection(server, project, f"{server.url}{path}").message

    assert sdk.get_endpoint() == f"{server.url}/v2/"
    assert list(sdk.queues()) == []


def test_openstacksdk_manages_queues(sdk):
    created = sdk.create_queue(name="q1", description="made by an SDK", default_message_ttl=100)
    assert created.name == "q1"

    shown = sdk.get_queue("q1")
    assert (shown.id, shown.description, shown.default_message_ttl) == ("q1", "made by an SDK", 100)
    assert shown.max_messages_post_size == 262144

    for number in range(12):
        sdk.create_queue(name=f"r{number:02}")
    assert [queue.name for queue in sdk.queues()] == ["q1", *(f"r{number:02}" for number in range(12))]
    sdk.delete_queue("q1")
    sdk.delete_queue("q1", ignore_missing=True)
    assert [queue.name for queue in sdk.queues(limit=5)] == [f"r{number:02}" for number in range(12)]


def test_openstacksdk_reads_all_messages(sdk):
    """It pages by the id of the last message."""
    sdk_post(sdk, *range(25))

    assert bodies(sdk.messages("q1")) == list(range(25))
    assert bodies(sdk.messages("q1", echo=True, include_claimed=True, limit=7)) == list(range(25))
    assert bodies(sdk.messages("nowhere")) == []


def test_openstacksdk_reads_and_deletes_a_message(sdk):
    id_, _ = sdk_post(sdk, {"any": "json"}, "other")

    message = sdk.get_message("q1", id_)
    assert (message.body, message.ttl, message.age) == ({"any": "json"}, 300, 0)

    sdk.delete_message("q1", id_)
    sdk.delete_message("q1", id_)
    with pytest.raises(NotFoundException):
        sdk.get_message("q1", id_)


def test_openstacksdk_works_through_a_claim(sdk):
    """With a claim of its own: the one that a connection makes trips over the SDK's use of `location`."""
    sdk_post(sdk, *range(5))

    claim = Claim.new(queue_name="q1", ttl=100, grace=60, limit=3).create(sdk)
    assert [message["body"] for message in claim.messages] == [0, 1, 2]
    first = claim.messages[0]["id"]

    sdk.update_claim("q1", claim.id, ttl=600)
    shown = sdk.get_claim("q1", claim.id)
    assert (shown.ttl, len(shown.messages)) == (600, 3)
    sdk.delete_message("q1", first, claim=claim.id)
    sdk.delete_claim("q1", claim.id)
    assert bodies(sdk.messages("q1")) == [1, 2, 3, 4]
    with pytest.raises(NotFoundException):
        sdk.get_claim("q1", claim.id)


def test_openstacksdk_finds_nothing_to_claim(sdk):
    claim = Claim.new(queue_name="q1", ttl=100, grace=60).create(sdk)

    assert claim.id is None


# --- plain HTTP, where the server itself matters


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    document: Any


@pytest.fixture
def http_(server: Server, project: str) -> Any:
    """Send one request as it is."""

    def send(method: str, path: str, body: Any = None, **headers: str) -> Reply:
        named = {"Client-ID": str(uuid.uuid4()), "X-Project-ID": project}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            text = response.read()
            return Reply(
                status=response.status, headers=response.headers, document=json.loads(text or b"null")
            )

    return send


def test_a_body_may_come_in_chunks(http_):
    """Section 5: without a Content-Length."""
    reply = http_(
        "POST", "/v2/queues/q1/messages", iter([b'{"messages": [', b'{"body": "in chunks"}', b"]}"])
    )

    assert reply.status == 201
    assert http_("GET", reply.document["resources"][0]).document["body"] == "in chunks"


def test_a_body_in_chunks_has_the_same_greatest_size(http_):
    def document(size: int) -> Iterator[bytes]:
        yield b'{"messages": [{"body": 1}]}'
        yield b" " * (size - 27)

    assert http_("POST", "/v2/queues/q1/messages", document(262144)).status == 201
    assert (
        http_("POST", "/v2/queues/q1/messages", document(262145)).document["title"] == "Invalid API request"
    )


def test_a_malformed_body_in_chunks_is_refused(http_):
    reply = http_("POST", "/v2/queues/q1/messages", iter([b'{"messages"', b": ["]))

    assert (reply.status, reply.document["title"]) == (400, "Invalid request body")


@pytest.mark.parametrize("path", ["/v2/queues/a%2Fb", "/v2/queues/a%2fb/messages"])
def test_an_encoded_slash_is_no_part_of_a_name(http_, path):
    reply = http_("GET", path)

    assert (reply.status, reply.document) == (404, {"title": "404 Not Found"})


@pytest.mark.parametrize("name", ["q1%0A", "%C3%A9", "%FF%FE", "a%00b"])
def test_f17_a_name_is_checked_as_it_was_meant(http_, name):
    reply = http_("PUT", f"/v2/queues/{name}")

    assert (reply.status, reply.document["title"]) == (400, "Invalid queue identification")


def test_every_answer_of_the_server_has_a_request_id(http_):
    for path in ("/", "/v2/ping", "/v2/nothing", "/v2/queues/b@d"):
        assert http_("GET", path).headers["X-OpenStack-Request-Id"].startswith("req-")


def test_a12_the_server_logs_requests_but_nothing_private(server, http_, project):
    secret = f"secret-{uuid.uuid4()}"
    http_("POST", "/v2/queues/q1/messages", json.dumps({"messages": [{"body": secret}]}))
    http_("POST", "/v2/queues/q1/messages", '{"messages": "' + secret)
    signature = http_("POST", "/v2/queues/q1/share", "{}").document["signature"]
    http_("GET", "/v2/queues/q1/messages", URL_Signature=signature, X_Auth_Token=secret, Authorization=secret)
    last = http_("GET", "/v2/queues").headers["X-OpenStack-Request-Id"]

    end = time.monotonic() + 10
    while last not in (text := server.log.read_text()) and time.monotonic() < end:
        time.sleep(0.05)

    entries = [json.loads(line) for line in text.splitlines()]
    [entry] = [entry for entry in entries if entry.get("request_id") == last]
    assert (entry["project"], entry["operation"], entry["status"]) == (project, "queue_list", 200)
    assert entry["ms"] >= 0
    assert secret not in text
    assert signature not in text
