"""From RabbitMQ to queues: consumes the notifications of OpenStack and posts them as events.

The services publish a notification to a topic exchange of their own (`nova`, `neutron`, ...)
under the routing key `<topic>.<priority>`, such as `notifications.info`. The bridge has a
queue of its own on the broker, bound to these exchanges; so it takes nothing away from
other consumers, and what is published while it is down waits for it.

    what happens                                the broker is told         the notification
    `post` returned                             acknowledge                is stored
    `post` raised Invalid, or it is malformed   reject, do not requeue     goes to the dead-letter exchange, or is dropped
    `post` raised another HermodError           requeue, then a pause      comes again
    the connection or this process broke        nothing                    comes again

What comes again has the same key (`Event.key`) as before; whoever posts with it stores
it once. The pause doubles with each failure in a row, up to a minute where it is the
store that fails, and to ten seconds where it is the broker.

Needs the extra `bridge` (kombu).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import structlog
from kombu.connection import Connection
from kombu.entity import Exchange, Queue, binding
from kombu.exceptions import OperationalError
from kombu.message import Message
from kombu.messaging import Consumer

from queues.errors import HermodError, Invalid
from queues.events import Event, read_notification

LONGEST_PAUSE = 60.0  # seconds between two attempts to post
LONGEST_ABSENCE = 10.0  # seconds between two attempts to reach the broker

_IDLE = 1.0  # seconds to wait for a notification before looking whether to stop
_LINGER = 0.01  # seconds to wait for one more before posting what there is

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where notifications come from."""

    url: str = field(repr=False)  # of the broker, amqp://user:password@host/vhost; several by semicolons
    exchanges: Sequence[str]  # control exchanges of the services
    topics: Sequence[str] = ("notifications",)  # as the services' option `topics` names them
    queue: str = "hermod"  # the bridge's own; bridges that share it share the work
    prefetch: int = 100  # notifications held at once, and so the most in one post
    durable_exchanges: bool = False  # as the services' option `amqp_durable_queues` says
    dead_letter_exchange: str | None = None  # takes what is malformed; None drops it
    # Of the broker's queue. A classic one delivers as often as it takes; a quorum queue needs
    # {"x-queue-type": "quorum", "x-delivery-limit": -1}, or it drops what a store refuses for long.
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"x-queue-type": "classic"})
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # of kombu.Connection, such as ssl

    def urls(self) -> Sequence[str]:
        """Return the URL of each node of the broker."""
        return [url for url in self.url.split(";") if url]

    def declaration(self) -> Queue:
        """Return the broker's queue and its bindings, to be declared."""
        extra = {"x-dead-letter-exchange": self.dead_letter_exchange} if self.dead_letter_exchange else {}
        exchanges = [Exchange(name, type="topic", durable=self.durable_exchanges) for name in self.exchanges]
        return Queue(
            self.queue,
            bindings=[
                binding(exchange, routing_key=f"{topic}.*") for exchange in exchanges for topic in self.topics
            ],
            durable=True,
            queue_arguments={**self.arguments, **extra},
        )


@dataclass(kw_only=True, slots=True)
class Counts:
    """What became of the notifications so far."""

    posted: int = 0  # acknowledged
    refused: int = 0  # malformed, or nothing that could ever be posted; rejected
    requeued: int = 0  # the store failed


class Bridge:
    """Carries notifications from a broker to where `post` puts them.

    `post` gets one or more events in the order of their arrival, and returns when they are stored
    for good. It raises Invalid for what cannot ever be stored, such as an event that is too
    large, and any other HermodError for what may work later; both mean that nothing is to be
    acknowledged, though a part may be stored.
    """

    def __init__(self, source: Source, post: Callable[[Sequence[Event]], None]) -> None:
        self.counts = Counts()
        self._source = source
        self._store = post
        self._failures = 0  # in a row

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set, which is noticed within a second; what is held then is still posted.

        A broker that is not there, or goes away, is waited for, at each of its URLs in turn. Any other error
        of `post`, which would be a defect, passes, with nothing acknowledged; only an OSError is taken for one
        of the broker's.
        """
        urls = cycle(self._source.urls())
        url = next(urls)
        while not stop.is_set():
            with Connection(url, heartbeat=60, **{**_encryption(url), **self._source.options}) as connection:
                lost = (*connection.connection_errors, *connection.channel_errors, OperationalError)
                longest = LONGEST_PAUSE
                try:
                    connection.ensure_connection(max_retries=0)
                    self._look_for_dead_letters(connection)
                    self._consume(connection, stop)
                    continue
                except HermodError as error:
                    _log.warning("the bridge could not post", error=str(error))
                except lost as error:
                    _log.warning("the bridge has no broker", broker=connection.as_uri(), error=str(error))
                    url, longest = next(urls), LONGEST_ABSENCE
            # Without a connection there are no heartbeats to be sent while waiting.
            self._failures += 1
            stop.wait(min(longest, pause_after(self._failures)))

    def _look_for_dead_letters(self, connection: Connection) -> None:
        """Say if what is malformed would go nowhere; a broker drops it then without a word."""
        name = self._source.dead_letter_exchange
        if not name:
            return
        try:
            with connection.channel() as channel:
                Exchange(name, passive=True).declare(channel=channel)
        except connection.channel_errors as error:
            _log.warning("the bridge has no exchange for dead letters", exchange=name, error=str(error))

    def _consume(self, connection: Connection, stop: threading.Event) -> None:
        held: list[Message] = []
        with (
            connection.channel() as channel,
            Consumer(
                channel,
                [self._source.declaration()],
                on_message=held.append,
                on_decode_error=self._refuse,
                prefetch_count=self._source.prefetch,
            ),
        ):
            while True:
                self._collect(connection, held)
                messages, held[:] = list(held), []
                self._deliver(messages)
                if stop.is_set():
                    return

    def _collect(self, connection: Connection, held: list[Message]) -> None:
        """Wait for a notification, then take what else is there."""
        connection.heartbeat_check()
        try:
            connection.drain_events(timeout=_IDLE)
            while len(held) < self._source.prefetch:
                connection.drain_events(timeout=_LINGER)
        except TimeoutError:
            return

    def _deliver(self, messages: Sequence[Message]) -> None:
        """Post messages and settle each of them with the broker."""
        try:
            self._post([pair for message in messages for pair in self._read(message)])
        except HermodError:
            for message in messages:
                if not message.acknowledged:  # that is: settled, in whichever way
                    message.requeue()
                    self.counts.requeued += 1
            raise

    def _read(self, message: Message) -> list[tuple[Message, Event]]:
        body = message.body or b""
        try:
            # A transport may have decoded the text already.
            raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
            return [(message, read_notification(raw))]
        except Invalid as error:
            self._refuse(message, error)
            return []

    def _post(self, pairs: Sequence[tuple[Message, Event]]) -> None:
        if not pairs:
            return
        try:
            self._store([event for _, event in pairs])
        except Invalid as error:
            if len(pairs) == 1:
                self._refuse(pairs[0][0], error)
                return
            for pair in pairs:  # some of them can never be stored; the others must not wait for that
                self._post([pair])
            return
        self._failures = 0
        for message, _ in pairs:
            message.ack()
            self.counts.posted += 1

    def _refuse(self, message: Message, error: Exception) -> None:
        message.reject(requeue=False)
        self.counts.refused += 1
        where = message.delivery_info or {}
        _log.warning(
            "the bridge refused a notification",
            exchange=where.get("exchange"),
            routing_key=where.get("routing_key"),
            error=str(error),
        )


def pause_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, one at least."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures - 1, 10))


def _encryption(url: str) -> Mapping[str, Any]:
    """Return the options by which a broker has to prove who it is, where the connection to it is encrypted."""
    # Otherwise any certificate would do that is somebody's.
    return {"ssl": {"server_hostname": urlsplit(url).hostname}} if url.startswith("amqps:") else {}
