"""Webhooks: one HTTP POST per message, to http and https, and with a token to trust+http and trust+https.

Redirects are not followed, cookies are not kept, nothing of the response but the status, the
`Retry-After` and whether the connection can be used again is looked at.
"""

from __future__ import annotations

import asyncio
import email.utils
import errno
import io
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from notifiers import cloudevents
from notifiers.cloudevents import Content
from notifiers.egress import EgressPolicy, GuardedResolver, guarded_sockets
from notifiers.headers import checked_headers
from notifiers.outcome import LONGEST_PAUSE, Delivery, Kind, Outcome, Undeliverable
from notifiers.resolving import SystemResolver, on_behalf_of
from notifiers.signatures import WebhookSigner
from queues import __version__
from queues.errors import TrustsUnavailable
from queues.models import Json
from queues.service.trusts import TRUSTING, is_trusting

SCHEMES = ("http", "https", *TRUSTING)
PLACEHOLDER = b'"$zaqar_message$"'  # in `options.post_data`; the quotes belong to it

_TRUST = "trust+"
_PLAIN = "zaqar"  # the format that there is without one
_FORMATS: Mapping[str, Callable[[Delivery], Content]] = {
    "cloudevents-structured": cloudevents.structured,
    "cloudevents-binary": cloudevents.binary,
}
_UNAUTHORIZED = 401
_GONE = 410
_PASSING = frozenset({408, 429})
_PAUSES = frozenset({429, 503})  # the answers whose Retry-After counts
#: Failures to connect that are this machine's.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Credentials(Protocol):
    """Tokens for trust+ subscribers."""

    async def token(self, delivery: Delivery) -> str:
        """Return what a delivery is to have as its X-Auth-Token.

        Raises Undeliverable where there is no right to one, TrustsUnavailable where it may work later.
        """
        ...

    def refused(self, delivery: Delivery, token: str) -> None:
        """Note that the subscriber did not take a token."""

    async def close(self) -> None:
        """Let go of whatever tokens come from."""


class NoCredentials:
    """The credentials of a service without Keystone."""

    async def token(self, delivery: Delivery) -> str:
        """Refuse."""
        raise Undeliverable("This service has no Keystone, and so no tokens for trust+ subscribers.")

    def refused(self, delivery: Delivery, token: str) -> None:
        """Never happens."""

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookSettings:
    """How webhooks are sent."""

    connect_timeout: float = 5.0  # seconds, for one address, TLS included
    timeout: float = 20.0  # seconds, for all of an attempt
    most_templated: int = 1024 * 1024  # bytes that a template of a subscription may come to
    most_response: int = 16 * 1024  # bytes that are read to keep a connection; a longer response costs it
    response_timeout: float = 2.0  # seconds that may take, once the status is known
    keep_alive: float = 15.0  # seconds that an unused connection is kept
    resolver_threads: int = 32  # names that are looked up at a time; half of them for one project at most
    user_agent: str = f"hermod/{__version__}"
    egress: EgressPolicy = field(default_factory=EgressPolicy)  # where they may go


class WebhookNotifier:
    """Posts messages to URLs; for one event loop."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        signer: WebhookSigner | None = None,
        credentials: Credentials | None = None,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take settings, and what replaces the system's resolver, trusted certificates and clock (Unix seconds)."""
        self._settings = settings
        self._signer = signer
        self._credentials = credentials or NoCredentials()
        self._resolver = resolver
        self._tls = tls
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Make one attempt; raises nothing but cancellation."""
        started, asked = time.monotonic(), False
        on_behalf_of.set(delivery.project)

        def outcome(kind: Kind, detail: str, *, reached: bool | None = None) -> Outcome:
            return Outcome(kind=kind, detail=detail, seconds=time.monotonic() - started, reached=reached)

        try:
            async with asyncio.timeout(self._settings.timeout):
                url, body, headers = await self._request(delivery)
                asked = True
                response = await self._open().post(url, data=body, headers=headers, allow_redirects=False)
        except Undeliverable as error:
            return outcome(Kind.REJECTED, str(error))
        except TrustsUnavailable as error:
            return outcome(Kind.RETRY, str(error))
        except aiohttp.InvalidURL:
            return outcome(Kind.REJECTED, "The subscriber is not a valid URL.")
        except TimeoutError as error:
            if not asked:
                return outcome(Kind.RETRY, "Keystone did not give a token in time.")
            return outcome(Kind.RETRY, "The subscriber did not answer in time.", reached=_reached(error))
        except (aiohttp.ClientError, OSError) as error:
            return outcome(Kind.RETRY, _explain(error), reached=_reached(error))
        judged = self._judge(response, time.monotonic() - started)
        if judged.status == _UNAUTHORIZED and is_trusting(delivery.subscriber):
            # A token can be revoked before its time, so the next attempt may have another one.
            self._credentials.refused(delivery, headers["X-Auth-Token"])
            judged = replace(judged, kind=Kind.RETRY)
        await self._finish(response)
        return judged

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._resolver is not None:
            await self._resolver.close()
        await self._credentials.close()

    async def _request(self, delivery: Delivery) -> tuple[URL, io.BytesIO, CIMultiDict[str]]:
        """Return where to post what, with which headers."""
        wants_token = is_trusting(delivery.subscriber)
        url = self._settings.egress.check_url(delivery.subscriber[len(_TRUST) if wants_token else 0 :])
        content = _content(delivery, self._settings.most_templated)
        headers = self._headers(delivery, content)
        if wants_token:  # in place of what the subscription may have as such a header
            headers["X-Auth-Token"] = await self._credentials.token(delivery)
        return url, io.BytesIO(content.body), headers

    def _headers(self, delivery: Delivery, content: Content) -> CIMultiDict[str]:
        """Later ones replace earlier ones; what makes an event one is not the subscription's to change."""
        headers = CIMultiDict({"User-Agent": self._settings.user_agent, "Content-Type": "application/json"})
        for name, value in checked_headers(delivery.options.get("post_headers")).items():
            headers[name] = value
        headers.update(content.headers)
        headers["Accept-Encoding"] = "identity"
        headers["webhook-id"] = delivery.id  # signed or not: by it a receiver knows what it has had
        if self._signer is not None:
            headers.update(
                self._signer.headers(
                    delivery.id, delivery.subscription_id, content.body, timestamp=int(self._clock())
                )
            )
        return headers

    def _judge(self, response: aiohttp.ClientResponse, seconds: float) -> Outcome:
        status = response.status
        pause = None
        if status in _PAUSES:
            pause = parse_retry_after(response.headers.get("Retry-After", ""), now=self._clock())
        kind, detail = _meaning(status)
        return Outcome(
            kind=kind, status=status, detail=detail, retry_after=pause, seconds=seconds, reached=True
        )

    async def _finish(self, response: aiohttp.ClientResponse) -> None:
        """Read the rest of a response, so that its connection can be used again; drop it if that is too much."""
        left = self._settings.most_response
        try:
            async with asyncio.timeout(self._settings.response_timeout):
                while left > 0 and (chunk := await response.content.read(left)):
                    left -= len(chunk)
        except (aiohttp.ClientError, OSError):  # TimeoutError is one of the latter
            pass
        finally:
            # Of a response that is complete the connection has gone back already; of any other it is dropped.
            response.close()

    def _open(self) -> aiohttp.ClientSession:
        """Return the session; a session needs the running event loop, so it is opened by the first attempt."""
        if self._session is None:
            settings = self._settings
            self._resolver = self._resolver or SystemResolver(settings.resolver_threads)
            connector = aiohttp.TCPConnector(
                resolver=GuardedResolver(settings.egress, self._resolver),
                use_dns_cache=False,
                socket_factory=guarded_sockets(settings.egress),
                ssl=self._tls or True,
                # Whoever hangs would keep all others of its host waiting; the worker has better bounds.
                limit=0,
                keepalive_timeout=settings.keep_alive,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    # All of it: the name, each of its addresses, TLS. What takes longer than that was reached.
                    connect=min(2 * settings.connect_timeout, 0.9 * settings.timeout),
                    sock_connect=settings.connect_timeout,
                ),
            )
        return self._session


def parse_retry_after(text: str, *, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, at most a day; None for one that says nothing.

    `now` is Unix seconds, for the form with a date (RFC 9110, 10.2.3).
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), LONGEST_PAUSE))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - datetime.fromtimestamp(now, UTC)).total_seconds()
    return min(max(0.0, seconds), float(LONGEST_PAUSE))


def _content(delivery: Delivery, most_templated: int) -> Content:
    """Return what is posted; raises Undeliverable for options that mean nothing, or too much (bytes)."""
    wanted = delivery.options.get("format")
    if wanted not in (None, _PLAIN):
        make = _FORMATS.get(wanted) if isinstance(wanted, str) else None
        if make is None:
            raise Undeliverable(f"The option format must be one of {', '.join((_PLAIN, *_FORMATS))}.")
        return make(delivery)
    template = delivery.options.get("post_data")
    if not template:
        return Content(body=delivery.payload, headers={})
    return Content(body=_fill(template, delivery.payload, most_templated), headers={})


def _fill(template: Json, payload: bytes, most: int) -> bytes:
    """Return a template (`options.post_data`) with the payload wherever it is wanted."""
    if not isinstance(template, str):
        raise Undeliverable("The option post_data must be a string.")
    try:
        raw = template.encode()
    except UnicodeEncodeError as error:
        raise Undeliverable("The option post_data is not valid text.") from error
    if len(raw) + raw.count(PLACEHOLDER) * len(payload) > most:  # before there are gigabytes of it
        raise Undeliverable("The option post_data makes too much of this message.")
    return raw.replace(PLACEHOLDER, payload)


def _meaning(status: int) -> tuple[Kind, str]:
    """Return what follows from a status, and what to say of it."""
    answered = f"The subscriber answered {status}"
    if 200 <= status < 300:
        return Kind.DELIVERED, f"{answered}."
    if 300 <= status < 400:
        return Kind.REJECTED, f"{answered}; redirects are not followed."
    if status == _GONE:
        return Kind.GONE, f"{answered}: it does not want any more messages."
    if status in _PASSING or status >= 500:
        return Kind.RETRY, f"{answered}."
    return Kind.REJECTED, f"{answered}."


def _reached(error: Exception) -> bool | None:
    """Whether a host was there for a request that failed; None where it never got as far as asking."""
    if isinstance(error, OSError) and error.errno in _OURS:
        return None
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _explain(error: Exception) -> str:
    """Say what went wrong on the way, without a word of addresses."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "The name of the subscriber's host could not be resolved."
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "No secure connection to the subscriber came about."
    if isinstance(error, aiohttp.ClientConnectorError):
        return "The subscriber could not be reached."
    return "The connection to the subscriber broke."
