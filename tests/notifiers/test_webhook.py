import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from aiohttp.abc import ResolveResult

from notifiers.egress import EgressPolicy
from notifiers.outcome import Delivery, Kind, Outcome, Undeliverable
from notifiers.resolving import on_behalf_of
from notifiers.signatures import WebhookSigner, verify
from notifiers.webhook import WebhookNotifier, WebhookSettings, parse_retry_after
from queues import __version__
from queues.errors import TrustsUnavailable
from tests.notifiers.receivers import Receiver, make_certificate, read_request, talking
from tests.notifiers.tables import TableResolver

T = TypeVar("T")
NOW = 1_800_000_000.5
SETTINGS = WebhookSettings(egress=EgressPolicy(allow=["127.0.0.0/8"]))
PAYLOAD = b'{"ttl": 300, "body": {"any": "json"}, "Message_Type": "Notification", "queue_name": "q1"}'


def a_delivery(subscriber: str, **options: Any) -> Delivery:
    return Delivery(
        id="d1",
        subscription_id="s1",
        project="p1",
        queue="q1",
        subscriber=subscriber,
        options=options,
        payload=PAYLOAD,
        body=b'{"any": "json"}',
    )


@asynccontextmanager
async def a_notifier(settings: WebhookSettings = SETTINGS, **parts: Any) -> AsyncIterator[WebhookNotifier]:
    notifier = WebhookNotifier(settings, clock=lambda: NOW, **parts)
    try:
        yield notifier
    finally:
        await notifier.close()


def post(receiver: Receiver, options: Mapping[str, Any] | None = None, **parts: Any) -> Outcome:
    """Deliver once to a receiver."""

    async def run() -> Outcome:
        async with receiver.listening(), a_notifier(**parts) as notifier:
            return await notifier.deliver(a_delivery(receiver.url, **(options or {})))

    return asyncio.run(run())


def post_to(url: str, settings: WebhookSettings = SETTINGS, **parts: Any) -> Outcome:
    async def run() -> Outcome:
        async with a_notifier(settings, **parts) as notifier:
            return await notifier.deliver(a_delivery(url))

    return asyncio.run(run())


def post_talking(
    talk: Callable[..., Awaitable[None]], settings: WebhookSettings = SETTINGS, times: int = 1
) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with talking(talk) as url, a_notifier(settings) as notifier:
            return [await notifier.deliver(a_delivery(url)) for _ in range(times)]

    return asyncio.run(run())


class Tokens:
    """Credentials that give everybody a token, or nobody."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.given = 0
        self.not_taken: list[str] = []
        self.closed = False

    async def token(self, delivery: Delivery) -> str:
        if self.error is not None:
            raise self.error
        self.given += 1
        return f"token of {delivery.project}"

    def refused(self, _: Delivery, token: str) -> None:
        self.not_taken.append(token)

    async def close(self) -> None:
        self.closed = True


class TestRequest:
    def test_the_payload_is_posted_as_it_is(self):
        receiver = Receiver()
        outcome = post(receiver)
        assert (outcome.kind, outcome.status) == (Kind.DELIVERED, 204)
        assert 0 < outcome.seconds < 20
        assert receiver.bodies == [PAYLOAD]
        [request] = receiver.requests
        assert (request.method, request.path) == ("POST", "/hook")
        assert receiver.sent["Content-Type"] == "application/json"
        assert receiver.sent["User-Agent"] == f"hermod/{__version__}"
        assert receiver.sent["Accept-Encoding"] == "identity"
        assert receiver.sent["Content-Length"] == str(len(PAYLOAD))

    def test_headers_of_the_subscription(self):
        receiver = Receiver()
        wanted = {
            "X-Key": "k",
            "content-type": "text/x",
            "Host": "evil",
            "Content-Length": "1",
            "webhook-id": "x",
        }
        post(receiver, {"post_headers": wanted}, signer=WebhookSigner([b"key"]))
        assert receiver.sent["X-Key"] == "k"
        assert receiver.sent.getall("Content-Type") == ["text/x"]
        assert receiver.sent["Host"] == f"127.0.0.1:{receiver.port}"
        assert receiver.sent.getall("webhook-id") == ["d1"]
        assert receiver.bodies == [PAYLOAD]

    def test_e6_what_is_not_signed_has_an_id_too(self):
        receiver = Receiver()
        post(receiver, {"post_headers": {"webhook-id": "x"}}, signer=None)
        assert receiver.sent.getall("webhook-id") == ["d1"]
        assert "webhook-signature" not in receiver.sent

    @pytest.mark.parametrize("headers", [{"a": "x\r\nHost: y"}, {"a": "é"}, "text"])
    def test_headers_that_cannot_be_sent_are_refused(self, headers):
        receiver = Receiver()
        outcome = post(receiver, {"post_headers": headers})
        assert outcome.kind is Kind.REJECTED
        assert "post_headers" in outcome.detail
        assert receiver.requests == []

    def test_a_template_of_the_subscription(self):
        receiver = Receiver()
        post(receiver, {"post_data": '{"params": {"message": "$zaqar_message$"}, "x": "$zaqar_message$"}'})
        assert json.loads(receiver.bodies[0]) == {
            "params": {"message": json.loads(PAYLOAD)},
            "x": json.loads(PAYLOAD),
        }

    def test_the_format_of_the_protocol_can_be_named(self):
        receiver = Receiver()
        outcomes = [
            post(receiver, {"format": "zaqar"}),
            post(receiver, {"format": "zaqar", "post_data": '["$zaqar_message$"]'}),
        ]
        assert [outcome.kind for outcome in outcomes] == [Kind.DELIVERED] * 2
        assert receiver.bodies == [PAYLOAD, b"[" + PAYLOAD + b"]"]

    def test_a_template_cannot_make_much_of_a_little(self):
        outcome = post(Receiver(), {"post_data": '"$zaqar_message$"' * 20_000})
        assert (outcome.kind, outcome.detail) == (
            Kind.REJECTED,
            "The option post_data makes too much of this message.",
        )

    @pytest.mark.parametrize("options", [{"post_data": {"a": 1}}, {"post_data": "\ud800"}, {"format": "xml"}])
    def test_options_that_mean_nothing_are_refused(self, options):
        outcome = post(Receiver(), options)
        assert outcome.kind is Kind.REJECTED
        assert next(iter(options)) in outcome.detail

    def test_e6_it_is_signed(self):
        receiver, signer = Receiver(), WebhookSigner([b"new", b"old"])
        post(receiver, signer=signer)
        sent = {name.lower(): value for name, value in receiver.sent.items()}
        assert sent["webhook-timestamp"] == "1800000000"
        verify(sent, receiver.bodies[0], signer.secrets("s1"), now=NOW)

    def test_cloud_events(self):
        receiver, signer = Receiver(), WebhookSigner([b"key"])
        post(receiver, {"format": "cloudevents-structured"}, signer=signer)
        assert json.loads(receiver.bodies[0])["data"] == {"any": "json"}
        assert receiver.sent["Content-Type"] == "application/cloudevents+json"
        sent = {name.lower(): value for name, value in receiver.sent.items()}
        verify(sent, receiver.bodies[0], signer.secrets("s1"), now=NOW)
        post(
            receiver, {"format": "cloudevents-binary", "post_headers": {"Content-Type": "x/y", "ce-id": "z"}}
        )
        assert receiver.bodies[1] == b'{"any": "json"}'
        assert receiver.sent.getall("Content-Type") == ["application/json"]
        assert receiver.sent.getall("ce-id") == ["d1"]

    def test_cookies_do_not_go_from_one_tenant_to_another(self):
        receiver = Receiver(headers={"Set-Cookie": "a=b; Path=/"})

        async def run() -> None:
            async with receiver.listening(), a_notifier() as notifier:
                for _ in range(2):
                    await notifier.deliver(a_delivery(receiver.url))

        asyncio.run(run())
        assert "Cookie" not in receiver.sent


class TestTrust:
    def test_without_credentials_it_is_refused(self):
        outcome = post_to("trust+http://127.0.0.1:1/")
        assert (outcome.kind, outcome.detail) == (
            Kind.REJECTED,
            "This service has no Keystone, and so no tokens for trust+ subscribers.",
        )

    def test_a5_the_token_is_added_and_cannot_be_replaced(self):
        receiver = Receiver()

        async def run() -> Outcome:
            async with receiver.listening(), a_notifier(credentials=Tokens()) as notifier:
                return await notifier.deliver(
                    a_delivery("Trust+" + receiver.url, post_headers={"x-auth-token": "mine"})
                )

        assert asyncio.run(run()).kind is Kind.DELIVERED
        assert receiver.sent.getall("X-Auth-Token") == ["token of p1"]

    @pytest.mark.parametrize(
        ("error", "kind"), [(Undeliverable("No."), Kind.REJECTED), (TrustsUnavailable("No."), Kind.RETRY)]
    )
    def test_credentials_may_fail(self, error, kind):
        outcome = post_to("trust+http://127.0.0.1:1/", credentials=Tokens(error))
        assert (outcome.kind, outcome.detail, outcome.reached) == (kind, "No.", None)

    def test_the_token_goes_where_webhooks_may_go_only(self):
        tokens = Tokens()
        outcome = post_to("trust+http://10.0.0.1/", WebhookSettings(), credentials=tokens)
        assert (outcome.kind, tokens.given) == (Kind.REJECTED, 0)

    def test_a_token_that_is_not_taken_is_told(self):
        receiver, tokens = Receiver(401), Tokens()

        async def run() -> list[Outcome]:
            async with receiver.listening(), a_notifier(credentials=tokens) as notifier:
                plain = a_delivery(receiver.url, post_headers={"X-Auth-Token": "mine"})
                trusting = a_delivery(f"trust+{receiver.url}")
                return [await notifier.deliver(each) for each in (plain, trusting)]

        outcomes = asyncio.run(run())
        assert [outcome.kind for outcome in outcomes] == [Kind.REJECTED, Kind.RETRY]
        assert tokens.not_taken == ["token of p1"]
        assert tokens.closed


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            *((200, Kind.DELIVERED), (201, Kind.DELIVERED), (202, Kind.DELIVERED), (299, Kind.DELIVERED)),
            *((300, Kind.REJECTED), (304, Kind.REJECTED), (400, Kind.REJECTED), (404, Kind.REJECTED)),
            *((401, Kind.REJECTED), (415, Kind.REJECTED), (408, Kind.RETRY), (429, Kind.RETRY)),
            *((410, Kind.GONE), (500, Kind.RETRY), (502, Kind.RETRY), (503, Kind.RETRY), (599, Kind.RETRY)),
        ],
    )
    def test_e3_what_follows(self, status, kind):
        outcome = post(Receiver(status, body=b"" if status == 304 else b"secret"))
        assert (outcome.kind, outcome.status) == (kind, status)
        assert str(status) in outcome.detail
        assert "secret" not in outcome.detail

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a6_redirects_are_not_followed(self, status):
        receiver = Receiver(status, {"Location": "/elsewhere"})
        assert post(receiver).kind is Kind.REJECTED
        assert len(receiver.requests) == 1

    @pytest.mark.parametrize(("status", "seconds"), [(429, 17), (503, 17), (500, None), (200, None)])
    def test_retry_after(self, status, seconds):
        assert post(Receiver(status, {"Retry-After": "17"})).retry_after == seconds

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            *(("0", 0), (" 120 ", 120), ("86401", 86400), ("9" * 5000, 86400), ("", None), ("soon", None)),
            *(("-5", None), ("1.5", None), ("\u0665", None)),
            ("Fri, 15 Jan 2027 08:01:00 GMT", 59.5),
            ("Friday, 15-Jan-27 08:01:00 GMT", 59.5),
            ("Fri, 15 Jan 2027 08:01:00 -0000", 59.5),
            ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
            ("Sun, 15 Jan 2040 07:00:00 GMT", 86400),
            ("Fri, 99 Jan 2027 07:00:00 GMT", None),
            ("Fri, 15 Jan 99999999999999999999 07:00:00 GMT", None),
        ],
    )
    def test_forms_of_retry_after(self, text, seconds):
        assert parse_retry_after(text, now=NOW) == seconds


class TestBadReceivers:
    IMPATIENT = replace(SETTINGS, timeout=0.3)

    @staticmethod
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    @staticmethod
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    @pytest.mark.parametrize("talk", ["hang", "drip"])
    def test_e5_who_takes_too_long_is_tried_again(self, talk):
        [outcome] = post_talking(getattr(self, talk), self.IMPATIENT)
        assert (outcome.kind, outcome.status) == (Kind.RETRY, None)
        assert outcome.detail == "The subscriber did not answer in time."
        assert 0.3 <= outcome.seconds < 5

    def test_a_dripping_body_changes_nothing_and_costs_the_connection(self):
        connections = []

        async def drip_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

        outcomes = post_talking(drip_body, replace(SETTINGS, response_timeout=0.1), times=2)
        assert [outcome.kind for outcome in outcomes] == [Kind.DELIVERED] * 2
        assert len(connections) == 2

    def test_a6_of_a_huge_body_little_is_read(self):
        sent = 0
        dropped = asyncio.Event()

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            try:
                while sent < 1_000_000_000:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    sent += 65536
            finally:
                dropped.set()

        async def run() -> Outcome:
            async with talking(pour) as url, a_notifier() as notifier:
                outcome = await notifier.deliver(a_delivery(url))
                await asyncio.wait_for(dropped.wait(), 10)
                return outcome

        assert asyncio.run(run()).kind is Kind.DELIVERED
        assert sent < 20_000_000  # the buffers of the system

    @pytest.mark.parametrize(
        "answer", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\0" * 100]
    )
    def test_who_talks_nonsense_is_tried_again(self, answer):
        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(answer)

        [outcome] = post_talking(nonsense)
        assert (outcome.kind, outcome.detail) == (Kind.RETRY, "The connection to the subscriber broke.")

    def test_a_reset_is_tried_again(self):
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.transport.abort()

        [outcome] = post_talking(reset)
        assert (outcome.kind, outcome.detail) == (Kind.RETRY, "The connection to the subscriber broke.")

    def test_endless_headers_are_tried_again(self):
        async def headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n")

        [outcome] = post_talking(headers)
        assert outcome.kind is Kind.RETRY

    def test_who_answers_before_reading_is_heard(self):
        async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await asyncio.Event().wait()

        async def run() -> Outcome:
            async with talking(hasty) as url, a_notifier() as notifier:
                return await notifier.deliver(replace(a_delivery(url), payload=b"x" * 20_000_000))

        outcome = asyncio.run(run())
        assert (outcome.kind, outcome.status) == (Kind.REJECTED, 413)

    def test_a_closed_port(self):
        outcome = post_to("http://127.0.0.1:1/")
        assert (outcome.kind, outcome.detail) == (Kind.RETRY, "The subscriber could not be reached.")

    def test_a_host_was_reached_whatever_its_answer_or_want_of_one(self):
        assert post(Receiver(204)).reached
        assert post(Receiver(500)).reached
        assert post_talking(self.hang, self.IMPATIENT)[0].reached

        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.transport.abort()

        assert post_talking(reset)[0].reached

    def test_a_host_was_not_reached_where_nobody_is_or_its_name_leads_nowhere(self):
        assert post_to("http://127.0.0.1:1/").reached is False
        assert post_to("http://hook.example/", resolver=TableResolver()).reached is False

    def test_a_name_that_takes_too_long_is_no_host_either(self):
        class Hanging(TableResolver):
            async def resolve(self, *_: object) -> list[ResolveResult]:
                await asyncio.Event().wait()
                raise AssertionError

        settings = replace(SETTINGS, connect_timeout=0.1)
        outcome = post_to("http://hook.example/", settings, resolver=Hanging())
        assert (outcome.kind, outcome.reached) == (Kind.RETRY, False)
        assert outcome.detail == "The subscriber did not answer in time."
        assert outcome.seconds < 5

    def test_a_name_is_looked_up_for_the_project_of_its_subscriber(self):
        asked = []

        class Noting(TableResolver):
            async def resolve(self, *arguments: Any) -> list[ResolveResult]:
                asked.append(on_behalf_of.get())
                return await super().resolve(*arguments)

        async def run() -> None:
            resolver = Noting(hook_example=[["127.0.0.1"]])
            async with a_notifier(resolver=resolver) as notifier:
                deliveries = [replace(a_delivery("http://hook.example:1/"), project=name) for name in "ab"]
                await asyncio.gather(*map(notifier.deliver, deliveries))

        asyncio.run(run())
        assert sorted(asked) == ["a", "b"]

    def test_a_host_that_was_not_asked_is_not_judged(self):
        assert post_to("http://10.0.0.1/", WebhookSettings()).reached is None

    def test_a_lack_of_file_handles_is_not_the_hosts_fault(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

        async def run() -> Outcome:
            async with a_notifier() as notifier:
                taken = [os.dup(0)]
                resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0], hard))
                try:
                    return await notifier.deliver(a_delivery("http://127.0.0.1:1/"))
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    os.close(taken[0])

        outcome = asyncio.run(run())
        assert (outcome.kind, outcome.reached) == (Kind.RETRY, None)

    def test_cancellation_gets_through(self):
        async def run() -> None:
            async with talking(self.hang) as url, a_notifier() as notifier:
                task = asyncio.create_task(notifier.deliver(a_delivery(url)))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(run())


class TestConnections:
    def test_they_are_used_again(self):
        receiver = Receiver(200, body=b"thanks")

        async def run() -> None:
            async with receiver.listening(), a_notifier() as notifier:
                for _ in range(10):
                    await asyncio.gather(*(notifier.deliver(a_delivery(receiver.url)) for _ in range(2)))

        asyncio.run(run())
        assert len(receiver.bodies) == 20
        assert len(receiver.connections) == 2

    def test_e5_paths_that_hang_keep_no_other_path_of_their_host_waiting(self):
        async def hang_or_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await read_request(reader)
            if head.startswith(b"POST /hook/hangs"):
                await reader.read()
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()

        async def run() -> Outcome:
            async with talking(hang_or_answer) as url, a_notifier() as notifier:
                hanging = [
                    asyncio.create_task(notifier.deliver(a_delivery(f"{url}/hangs/{number}")))
                    for number in range(100)
                ]
                await asyncio.sleep(0)  # they come first
                outcome = await notifier.deliver(a_delivery(url))
                for task in hanging:
                    task.cancel()
                await asyncio.gather(*hanging, return_exceptions=True)
                return outcome

        outcome = asyncio.run(run())
        assert outcome.kind is Kind.DELIVERED
        assert outcome.seconds < 5


class TestEgress:
    @pytest.mark.parametrize(
        "url",
        [
            *("http://127.0.0.1:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/"),
            *("http://127.1:{port}/", "http://0177.0.0.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/"),
            *("http://localhost:{port}/", "http://user@127.0.0.1:{port}/", "trust+http://127.0.0.1:{port}/"),
        ],
    )
    def test_a6_nothing_reaches_the_loopback(self, url):
        receiver = Receiver()

        async def run() -> Outcome:
            async with receiver.listening(), a_notifier(WebhookSettings()) as notifier:
                return await notifier.deliver(a_delivery(url.format(port=receiver.port)))

        outcome = asyncio.run(run())
        assert outcome.kind is Kind.REJECTED
        assert outcome.status is None
        assert "127" not in outcome.detail
        assert receiver.requests == []

    def test_a6_a_name_that_is_bound_anew_does_not(self):
        receiver = Receiver()
        # The first answer may be dialled (nobody is there), the second may not.
        resolver = TableResolver(hook_example=[["127.7.7.7"], ["127.0.0.1"]])
        settings = replace(SETTINGS, egress=EgressPolicy(allow=["127.7.7.7/32"]))

        async def run() -> list[Outcome]:
            async with receiver.listening(), a_notifier(settings, resolver=resolver) as notifier:
                receiver_url = f"http://hook.example:{receiver.port}/"
                return [await notifier.deliver(a_delivery(receiver_url)) for _ in range(2)]

        first, second = asyncio.run(run())
        assert (first.kind, second.kind) == (Kind.RETRY, Kind.REJECTED)
        assert second.detail == "The subscriber's address is not one that this service may call."
        assert receiver.requests == []

    def test_a6_the_judged_answer_is_the_one_that_is_dialled(self):
        receiver = Receiver()
        # A second question would be answered with another address.
        resolver = TableResolver(hook_example=[["127.0.0.1"], ["10.0.0.1"]])

        async def run() -> Outcome:
            async with receiver.listening(), a_notifier(resolver=resolver) as notifier:
                return await notifier.deliver(a_delivery(f"http://hook.example:{receiver.port}/"))

        assert asyncio.run(run()).kind is Kind.DELIVERED
        assert resolver.asked == ["hook.example"]
        assert receiver.sent["Host"] == f"hook.example:{receiver.port}"

    def test_refusals_do_not_use_up_connections(self):
        resolver = TableResolver(hook_example=[["10.0.0.1"]])

        async def run() -> list[Outcome]:
            async with a_notifier(resolver=resolver) as notifier:
                return [await notifier.deliver(a_delivery("http://hook.example/")) for _ in range(5)]

        assert {outcome.kind for outcome in asyncio.run(run())} == {Kind.REJECTED}

    def test_an_unknown_name_is_tried_again(self):
        outcome = post_to("http://hook.example/", resolver=TableResolver())
        assert outcome.kind is Kind.RETRY
        assert outcome.detail == "The name of the subscriber's host could not be resolved."

    def test_the_address_that_is_dialled_is_judged_too(self, monkeypatch):
        """aiohttp itself would dial a literal address without asking a resolver; the last wall stops that."""
        monkeypatch.setattr(EgressPolicy, "check_url", lambda _, url: url)
        outcome = post_to("http://127.0.0.1:1/", WebhookSettings())
        assert outcome.kind is Kind.REJECTED


class TestTls:
    @pytest.fixture
    def contexts(self, tmp_path):
        return make_certificate(tmp_path, "hook.example")

    def post(self, contexts: Any, host: str, **parts: Any) -> tuple[Outcome, list[str | None]]:
        server, *_ = contexts
        names: list[str | None] = []
        server.sni_callback = lambda _socket, name, _context: names.append(name)
        receiver = Receiver()
        resolver = TableResolver(hook_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])

        async def run() -> Outcome:
            async with receiver.listening(server), a_notifier(resolver=resolver, **parts) as notifier:
                return await notifier.deliver(a_delivery(f"https://{host}:{receiver.port}/"))

        return asyncio.run(run()), names

    def test_the_name_is_asked_for_and_verified(self, contexts):
        outcome, names = self.post(contexts, "hook.example", tls=contexts[1])
        assert outcome.kind is Kind.DELIVERED
        assert names == ["hook.example"]

    def test_another_name_is_not_trusted(self, contexts):
        outcome, _ = self.post(contexts, "other.example", tls=contexts[1])
        assert (outcome.kind, outcome.detail) == (
            Kind.RETRY,
            "No secure connection to the subscriber came about.",
        )

    def test_nor_is_an_unknown_certificate(self, contexts):
        assert self.post(contexts, "hook.example")[0].kind is Kind.RETRY
