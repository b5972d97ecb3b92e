import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from notifiers.mail import MailNotifier, MailSettings, parse_mailto
from notifiers.outcome import Delivery, Kind, Outcome, Undeliverable
from tests.notifiers.receivers import make_certificate, talking

SENDER = "hermod@example.org"
PAYLOAD = '{"body": "grüße", "Message_Type": "Notification"}'
SETTINGS = MailSettings(host="127.0.0.1", port=1, security="plain", sender=SENDER, local_name="test")


class Postbox:
    """Keeps mails; `answers` replaces what it says to a recipient, or to a mail."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, to: str, _: list[str]
    ) -> str:
        if "rcpt" in self.answers:
            return self.answers["rcpt"]
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return self.answers.get("data", "250 OK")

    def mail(self) -> EmailMessage:
        """The last mail."""
        content = self.envelopes[-1].content
        assert isinstance(content, bytes)
        return email.message_from_bytes(content, policy=email.policy.default)

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        servers: list[SMTP] = []

        def connect() -> SMTP:
            servers.append(SMTP(self, hostname="postbox", loop=loop, **options))
            return servers[-1]

        server = await loop.create_server(connect, "127.0.0.1", 0, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for each in servers:
                if each.transport is not None:
                    each.transport.close()
            await server.wait_closed()


@pytest.fixture
def postbox():
    return Postbox()


def a_delivery(subscriber: str = "mailto:ann@example.com", **options: Any) -> Delivery:
    return Delivery(
        id="d<1>",
        subscription_id="s1",
        project="p1",
        queue="q1",
        subscriber=subscriber,
        options=options,
        payload=PAYLOAD.encode(),
        body=b"{}",
    )


@asynccontextmanager
async def a_notifier(settings: MailSettings, **parts: Any) -> AsyncIterator[MailNotifier]:
    notifier = MailNotifier(settings, **parts)
    try:
        yield notifier
    finally:
        await notifier.close()


def send(
    postbox: Postbox,
    *deliveries: Delivery,
    settings: MailSettings = SETTINGS,
    server: dict[str, Any] | None = None,
    **parts: Any,
) -> list[Outcome]:
    async def run() -> list[Outcome]:
        async with (
            postbox.open(**(server or {})) as port,
            a_notifier(replace(settings, port=port), **parts) as notifier,
        ):
            return [await notifier.deliver(delivery) for delivery in deliveries]

    return asyncio.run(run())


class TestMails:
    def test_what_arrives(self, postbox):
        [outcome] = send(postbox, a_delivery())
        assert (outcome.kind, outcome.status) == (Kind.DELIVERED, 250)
        [envelope] = postbox.envelopes
        assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, ["ann@example.com"])
        mail = postbox.mail()
        assert mail.get_content().rstrip("\r\n") == PAYLOAD
        assert mail.get_content_type() == "text/plain"
        assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, "ann@example.com", "Notification")
        assert mail["Sender"] is None
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Date"]

    def test_the_subscription_chooses(self, postbox):
        options = {"from": "Zoë Q. <zoe@example.net>", "subject": "Größe, sehr lang " * 10}
        send(postbox, a_delivery(**options))
        mail = postbox.mail()
        assert mail["From"].addresses[0].display_name == "Zoë Q."
        assert mail["From"].addresses[0].addr_spec == "zoe@example.net"
        assert mail["Sender"] == SENDER
        assert mail["Subject"] == options["subject"]
        assert postbox.envelopes[0].mail_from == SENDER

    def test_e11_the_subject_of_the_uri_wins(self, postbox):
        send(postbox, a_delivery("mailto:ann@example.com?x=y&SubJect=A%20%C3%A9+b", subject="other"))
        assert postbox.mail()["Subject"] == "A é+b"

    def test_each_attempt_has_the_same_id(self, postbox):
        send(postbox, a_delivery(), replace(a_delivery(), attempt=2), replace(a_delivery(), id="d2"))
        ids = [email.message_from_bytes(envelope.content)["Message-ID"] for envelope in postbox.envelopes]
        assert ids[0] == ids[1] != ids[2]
        assert ids[0].endswith("@example.org>")

    def test_long_payloads_and_dots_survive(self, postbox):
        payload = b'{"a": "' + b".\r\n.\r\n" * 3 + b"x" * 5000 + b'"}'
        send(postbox, replace(a_delivery(), payload=payload))
        assert postbox.mail().get_content().rstrip("\r\n") == payload.decode()


class TestRefusals:
    @pytest.mark.parametrize(
        "options",
        [
            *({"subject": "a\r\nBcc: x@y"}, {"subject": "a\n"}, {"subject": "a\0"}, {"subject": "a\u2028b"}),
            *({"subject": "\ud800"}, {"subject": 5}, {"subject": ["a"]}, {"subject": "x" * 501}),
            *(
                {"from": "a@b\r\nBcc: x@y"},
                {"from": "a"},
                {"from": "a@b, c@d"},
                {"from": "a@b <c>"},
                {"from": 5},
            ),
            *({"from": '"a" <b@c> d'}, {"from": "a..b@c"}, {"from": "x\n<a@b>"}),
        ],
    )
    def test_of_options(self, postbox, options):
        [outcome] = send(postbox, a_delivery(**options))
        assert (outcome.kind, outcome.status) == (Kind.REJECTED, None)
        assert next(iter(options)) in outcome.detail
        assert postbox.envelopes == []

    @pytest.mark.parametrize(
        "uri",
        [
            *("mailto:", "mailto:ann", "mailto:a@b,c@d", "mailto:a@b%2Cc@d", "mailto:a%0D%0ARCPT@b", "mailto:a b@c"),
            *("mailto:<a@b>", "mailto:a@b%0A", "mailto:%C3%A9@b", "mailto:a@[127.0.0.1]", f"mailto:{'a' * 260}@b"),
            *("mailto:a@b?subject=x%0D%0ABcc:y@z", "mailto:a@b?subject=x%0Ay", "mailto:?to=a@b", "mailto://a@b"),
        ],
    )  # fmt: skip
    def test_of_uris(self, postbox, uri):
        [outcome] = send(postbox, a_delivery(uri))
        assert outcome.kind is Kind.REJECTED
        assert postbox.envelopes == []

    @pytest.mark.parametrize(
        ("uri", "parsed"),
        [
            ("mailto:a+b@c.example", ("a+b@c.example", "")),
            ("MAILTO:a%2Bb@c?cc=x@y&body=z", ("a+b@c", "")),
            ("mailto:a@b?subject=x=y#z", ("a@b", "x=y")),
        ],
    )
    def test_other_uris_are_read(self, uri, parsed):
        assert parse_mailto(uri) == parsed

    def test_two_addresses_are_too_many(self):
        with pytest.raises(Undeliverable, match="one plain mail address"):
            parse_mailto("mailto:a@b,c@d")


class TestAnswers:
    @pytest.mark.parametrize("step", ["rcpt", "data"])
    @pytest.mark.parametrize(
        ("answer", "kind", "status"),
        [
            ("450 later, secret", Kind.RETRY, 450),
            ("421 closing", Kind.RETRY, 421),
            ("550 never, secret", Kind.REJECTED, 550),
        ],
    )
    def test_what_follows(self, step, answer, kind, status):
        outcomes = send(Postbox(**{step: answer}), a_delivery(), a_delivery())
        assert [(outcome.kind, outcome.status) for outcome in outcomes] == [(kind, status)] * 2
        assert outcomes[0].detail == f"The mail server answered {status}."


class TestBadServers:
    @staticmethod
    def deliver(talk: Any, **changes: Any) -> Outcome:
        async def run() -> Outcome:
            async with talking(talk) as url:
                port = int(url.split(":")[2].partition("/")[0])
                async with a_notifier(replace(SETTINGS, port=port, **changes)) as notifier:
                    return await notifier.deliver(a_delivery())

        return asyncio.run(run())

    def test_nobody_there(self):
        async def run() -> Outcome:
            async with a_notifier(SETTINGS) as notifier:
                return await notifier.deliver(a_delivery())

        outcome = asyncio.run(run())
        assert (outcome.kind, outcome.detail) == (Kind.RETRY, "The mail server could not be used.")

    @pytest.mark.parametrize(
        "greeting", [b"", b"554 go away\r\n", b"nonsense\r\n", b"220 hello\r\n500 no\r\n"]
    )
    def test_who_does_not_talk_to_us_may_do_so_later(self, greeting):
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)

        assert self.deliver(greet).kind is Kind.RETRY

    def test_who_says_nothing(self):
        async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        outcome = self.deliver(hang, timeout=0.2)
        assert (outcome.kind, outcome.detail) == (Kind.RETRY, "The mail server did not answer in time.")


class TestConnections:
    def test_e11_several_mails_share_one(self, postbox):
        send(postbox, *[a_delivery()] * 3)
        assert len({session.peer for session in postbox.sessions}) == 1

    def test_also_after_a_mail_was_refused(self):
        postbox = Postbox(data="550 no")
        send(postbox, *[a_delivery()] * 3)
        assert len({session.peer for session in postbox.sessions}) == 1

    def test_one_that_was_lost_is_replaced(self, postbox):
        async def run() -> list[Outcome]:
            async with postbox.open() as port, a_notifier(replace(SETTINGS, port=port)) as notifier:
                first = await notifier.deliver(a_delivery())
                connection, _ = notifier._idle[0]
                assert connection.transport is not None
                connection.transport.close()
                return [first, await notifier.deliver(a_delivery())]

        assert [outcome.kind for outcome in asyncio.run(run())] == [Kind.DELIVERED] * 2
        assert len({session.peer for session in postbox.sessions}) == 2

    def test_one_that_is_old_is_replaced(self, postbox):
        times = iter([0.0, 31.0, 31.0, 40.0, 41.0])
        send(postbox, *[a_delivery()] * 3, clock=lambda: next(times))
        assert len({session.peer for session in postbox.sessions}) == 2

    def test_there_are_not_too_many(self, postbox):
        async def run() -> None:
            async with (
                postbox.open() as port,
                a_notifier(replace(SETTINGS, port=port, connections=4)) as notifier,
            ):
                await asyncio.gather(*(notifier.deliver(a_delivery()) for _ in range(10)))

        asyncio.run(run())
        assert len(postbox.envelopes) == 10
        assert len({session.peer for session in postbox.sessions}) <= 2  # half of them, for one project

    def test_mails_of_a_project_that_take_their_time_leave_room_for_another(self, postbox):
        async def run() -> tuple[Outcome, int]:
            release = asyncio.Event()

            async def wait_for_blue(_server: SMTP, _session: Session, envelope: Envelope) -> str:
                if "slow@example.org" in envelope.rcpt_tos:
                    await release.wait()
                return "250 OK"

            postbox.handle_DATA = wait_for_blue
            async with postbox.open() as port, a_notifier(replace(SETTINGS, port=port)) as notifier:
                slow = [
                    asyncio.create_task(notifier.deliver(a_delivery("mailto:slow@example.org")))
                    for _ in range(20)
                ]
                await asyncio.sleep(0)
                other = await notifier.deliver(replace(a_delivery(), project="another"))
                done = sum(task.done() for task in slow)
                release.set()
                await asyncio.gather(*slow)
                return other, done

        outcome, done = asyncio.run(run())
        assert (outcome.kind, done) == (Kind.DELIVERED, 0)


class TestSecurity:
    @pytest.fixture
    def contexts(self, tmp_path):
        return make_certificate(tmp_path, "mail.example")

    def test_starttls(self, postbox, contexts):
        settings = replace(SETTINGS, security="starttls")
        server = {"tls_context": contexts[0], "require_starttls": True}
        [outcome] = send(postbox, a_delivery(), settings=settings, server=server, tls=contexts[1])
        assert outcome.kind is Kind.DELIVERED
        assert postbox.sessions[0].ssl is not None

    def test_tls(self, postbox, contexts):
        settings = replace(SETTINGS, security="tls")
        [outcome] = send(
            postbox, a_delivery(), settings=settings, server={"tls": contexts[0]}, tls=contexts[1]
        )
        assert outcome.kind is Kind.DELIVERED

    def test_a_server_without_starttls_gets_no_mail(self, postbox):
        [outcome] = send(postbox, a_delivery(), settings=replace(SETTINGS, security="starttls"))
        assert outcome.kind is Kind.RETRY
        assert postbox.envelopes == []

    def test_nor_does_an_unknown_certificate(self, postbox, contexts):
        settings = replace(SETTINGS, security="starttls")
        [outcome] = send(postbox, a_delivery(), settings=settings, server={"tls_context": contexts[0]})
        assert outcome.kind is Kind.RETRY
        assert postbox.envelopes == []

    @pytest.mark.parametrize(("password", "kind"), [("right", Kind.DELIVERED), ("wrong", Kind.RETRY)])
    def test_log_in(self, postbox, contexts, password, kind):
        def authenticate(
            _server: SMTP, _session: Session, _envelope: Envelope, _: str, shown: Any
        ) -> AuthResult:
            assert isinstance(shown, LoginPassword)
            return AuthResult(success=shown == LoginPassword(b"me", b"right"), handled=False)

        settings = replace(SETTINGS, security="starttls", username="me", password=password)
        server = {"tls_context": contexts[0], "authenticator": authenticate, "auth_required": True}
        [outcome] = send(postbox, a_delivery(), settings=settings, server=server, tls=contexts[1])
        assert outcome.kind is kind
        assert password not in repr(settings) + outcome.detail

    def test_no_log_in_without_encryption(self):
        with pytest.raises(ValueError, match="needs tls or starttls"):
            replace(SETTINGS, username="me")

    @pytest.mark.parametrize("sender", ["", "hermod", "a@b\r\nX: y", "Hermod <a@b>"])
    def test_the_sender_must_be_an_address(self, sender):
        with pytest.raises(ValueError, match="plain mail address"):
            replace(SETTINGS, sender=sender)
