"""Mail: one text mail per message to the address of a mailto URI, by the operator's SMTP server.

The envelope is the operator's: bounces go to its sender, whatever `options.from` says. Where that
differs from the sender, the mail says so (`Sender`, RFC 5322 3.6.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as WIRE_FORMAT
from email.utils import formatdate
from typing import Literal
from urllib.parse import unquote

import aiosmtplib
import structlog
from aiosmtplib import SMTP, SMTPException, SMTPRecipientsRefused, SMTPResponseException

from notifiers.outcome import Delivery, Kind, Outcome, Undeliverable
from notifiers.room import Shares
from queues.mailto import is_address
from queues.models import Json

SCHEMES = ("mailto",)
LONGEST_LINE = 500  # characters of a subject or a name

_NAMED = re.compile(r'"?([^"<>\\]*?)"?\s*<([^<>]*)>')
_UNSAFE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, half pairs, line and paragraph ends
_SERVICE_CLOSING = 421

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class MailSettings:
    """The operator's SMTP server; ValueError for a password that anybody on the way could read."""

    host: str
    port: int
    security: Literal["tls", "starttls", "plain"] = "starttls"  # TLS at once, by STARTTLS, or not at all
    username: str = ""  # empty: no log-in
    password: str = field(default="", repr=False)
    sender: str  # address of the envelope, and of mails without options.from
    subject: str = "Notification"  # of mails without one of their own
    timeout: float = 30.0  # seconds, for all of an attempt
    connections: int = 8  # at a time, half of them for one project at most; further attempts wait
    keep_alive: float = 30.0  # seconds that an unused connection is kept
    local_name: str | None = None  # what the server is told this host is called; None: the system knows

    def __post_init__(self) -> None:
        if self.username and self.security == "plain":
            raise ValueError("a log-in at the SMTP server needs tls or starttls")
        if not is_address(self.sender):
            raise ValueError("the sender of mails must be a plain mail address")


class MailNotifier:
    """Sends messages by mail; for one event loop."""

    def __init__(
        self,
        settings: MailSettings,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take settings, and what replaces the system's trusted certificates and clock (seconds)."""
        self._settings = settings
        self._tls = tls
        self._clock = clock
        self._places = Shares(settings.connections)
        self._idle: list[tuple[SMTP, float]] = []  # with the time since which they are unused

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Make one attempt; raises nothing but cancellation."""
        started = time.monotonic()

        def outcome(kind: Kind, detail: str, status: int | None = None) -> Outcome:
            return Outcome(kind=kind, status=status, detail=detail, seconds=time.monotonic() - started)

        try:
            recipient, message = compose(delivery, self._settings)
            async with asyncio.timeout(self._settings.timeout):
                await self._places.enter(delivery.project)
                try:
                    status = await self._send(recipient, message)
                finally:
                    self._places.leave(delivery.project)
        except Undeliverable as error:
            return outcome(Kind.REJECTED, str(error))
        except TimeoutError:
            return outcome(Kind.RETRY, "The mail server did not answer in time.")
        except (SMTPException, OSError) as error:
            _log.warning("cannot use the mail server", reason=str(error))
            return outcome(Kind.RETRY, "The mail server could not be used.")
        return outcome(_meaning(status), f"The mail server answered {status}.", status)

    async def close(self) -> None:
        """Take leave of the server."""
        while self._idle:
            connection, _ = self._idle.pop()
            with contextlib.suppress(SMTPException, OSError):
                await connection.quit(timeout=1)
            connection.close()

    async def _send(self, recipient: str, message: bytes) -> int:
        """Return the status that a mail met with; raises SMTPException or OSError without one."""
        connection = await self._connect()
        status = 0
        try:
            status = await _transact(connection, self._settings.sender, recipient, message)
        finally:
            if status in (0, _SERVICE_CLOSING) or not connection.is_connected:
                connection.close()
            else:
                self._idle.append((connection, self._clock()))
        return status

    async def _connect(self) -> SMTP:
        """Return a connection that was alive just now.

        Raises SMTPException or OSError. All that the server says here is about the operator's
        settings, not about a mail, so none of it is final.
        """
        while self._idle:
            connection, since = self._idle.pop()
            if self._clock() - since < self._settings.keep_alive and await _is_alive(connection):
                return connection
            connection.close()
        settings = self._settings
        connection = SMTP(
            hostname=settings.host,
            port=settings.port,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=None if settings.security == "plain" else self._tls or ssl.create_default_context(),
            username=settings.username or None,
            password=settings.password if settings.username else None,
            local_hostname=settings.local_name,
            timeout=settings.timeout,
        )
        await connection.connect()
        return connection


def compose(delivery: Delivery, settings: MailSettings) -> tuple[str, bytes]:
    """Return the recipient and the mail as it is sent.

    Raises Undeliverable for addresses that are none, and for line breaks in what becomes a header.
    """
    recipient, subject = parse_mailto(delivery.subscriber)
    author = _author(delivery.options.get("from"), settings.sender)
    message = EmailMessage(policy=WIRE_FORMAT)
    message["From"] = author
    if author.addr_spec != settings.sender:
        message["Sender"] = Address(addr_spec=settings.sender)
    message["To"] = Address(addr_spec=recipient)
    message["Subject"] = (
        _line("subject", subject) or _line("subject", delivery.options.get("subject")) or settings.subject
    )
    message["Date"] = formatdate()
    # The same on each attempt, so that a mail that arrives twice can be told.
    digest = hashlib.sha256(delivery.id.encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}@{settings.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # keeps holiday notices away, RFC 3834
    message.set_content(delivery.payload.decode(errors="replace"), cte="quoted-printable")
    return recipient, message.as_bytes()


def parse_mailto(uri: str) -> tuple[str, str]:
    """Return the address and the subject, or "", of a mailto URI (RFC 6068); others of its fields are ignored.

    Raises Undeliverable unless there is exactly one address, in its plain form.
    """
    path, _, query = uri.partition(":")[2].partition("#")[0].partition("?")
    recipient = unquote(path)
    if not is_address(recipient):
        raise Undeliverable("The subscriber must be mailto: followed by one plain mail address.")
    subject = ""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if unquote(name).lower() == "subject":
            subject = unquote(value)
    return recipient, subject


def _author(wanted: Json, default: str) -> Address:
    """Return the From: `a@b.example` or `Name <a@b.example>`."""
    text = _line("from", wanted) or default
    named = _NAMED.fullmatch(text)
    name, address = (named[1].strip(), named[2]) if named else ("", text)
    if not is_address(address):
        raise Undeliverable(
            "The option from must be a plain mail address, or a name and one in angle brackets."
        )
    return Address(display_name=name, addr_spec=address)


def _line(option: str, value: Json) -> str:
    """Return text that may stand in a header; "" for None."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_LINE:
        raise Undeliverable(f"The {option} must be a text of at most {LONGEST_LINE} characters.")
    if any(unicodedata.category(character) in _UNSAFE for character in value):
        raise Undeliverable(f"The {option} must be a single line without control characters.")
    return value


async def _transact(connection: SMTP, sender: str, recipient: str, message: bytes) -> int:
    try:
        await connection.sendmail(sender, [recipient], message)
    except SMTPRecipientsRefused as error:
        return error.recipients[0].code
    except SMTPResponseException as error:
        return error.code
    return int(aiosmtplib.SMTPStatus.completed)


async def _is_alive(connection: SMTP) -> bool:
    try:
        await connection.noop()
    except (SMTPException, OSError):
        return False
    return True


def _meaning(status: int) -> Kind:
    """Return what follows from a reply (RFC 5321, 4.2.1); what is none is a broken server."""
    if 200 <= status < 300:
        return Kind.DELIVERED
    return Kind.REJECTED if 500 <= status < 600 else Kind.RETRY
