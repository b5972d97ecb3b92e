"""How tickets and pending deliveries are written down, as messages of queues that belong to no project.

A line of JSON says what they are about; what follows is JSON too, encrypted where the
queue's messages are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from queues.models import Address, Message, NewMessage, Notice, PendingDelivery, Ticket

TTL = 14 * 24 * 3600  # seconds that a ticket waits for somebody who takes it

Seal = Callable[[str, bytes], bytes]  # of a project and a text


class Announced(NamedTuple):
    """A message that subscribers are to be told of."""

    body: bytes  # JSON text
    ttl: int  # seconds
    delay: int | None  # seconds


class _Head(msgspec.Struct):
    project: str
    queue: str


class _Notice(msgspec.Struct):
    body: msgspec.Raw
    ttl: int
    delay: int | None = None


class _PendingHead(_Head):
    id: str  # of the notice
    subscription: str
    attempt: int
    posted: int
    replayed: int = 0
    begun: int = 0


class _Pending(msgspec.Struct):
    notice: _Notice
    payload: bytes | None = None
    options: dict[str, Any] | None = None


_head = msgspec.json.Decoder(_Head)
_notice = msgspec.json.Decoder(_Notice)
_notices = msgspec.json.Decoder(list[_Notice])
_pending_head = msgspec.json.Decoder(_PendingHead)
_pending = msgspec.json.Decoder(_Pending)


def ticket_message(
    address: Address, notices: Sequence[Announced], delay: int, *, seal: Seal | None = None
) -> NewMessage:
    """Write a ticket down that is due after `delay` seconds."""
    content = [_Notice(msgspec.Raw(notice.body), notice.ttl, notice.delay) for notice in notices]
    return _message(_Head(address.project, address.queue), content, TTL + delay, delay, seal)


def read_ticket(message: Message, unseal: Seal) -> Ticket:
    """Read a ticket; raises Unsealable."""
    line, _, rest = message.body.partition(b"\n")
    head = _head.decode(line)
    content = _notices.decode(unseal(head.project, rest) if message.sealed else rest)
    notices = [
        Notice(id=f"msg_{message.id}{number:x}", body=bytes(each.body), ttl=each.ttl, delay=each.delay)
        for number, each in enumerate(content)
    ]
    address = Address(project=head.project, queue=head.queue)
    return Ticket(
        id=message.id, address=address, posted=message.created, notices=notices, sealed=message.sealed
    )


def pending_message(pending: PendingDelivery, seal: Seal, *, ttl: int = TTL, delay: int = 0) -> NewMessage:
    """Write a delivery down that is due after `delay` seconds."""
    head = _PendingHead(
        project=pending.address.project,
        queue=pending.address.queue,
        id=pending.notice.id,
        subscription=pending.subscription_id,
        attempt=pending.attempt,
        posted=pending.posted,
        replayed=pending.replayed,
        begun=pending.begun,
    )
    notice = _Notice(msgspec.Raw(pending.notice.body), pending.notice.ttl, pending.notice.delay)
    content = _Pending(notice, pending.payload, pending.options)
    return _message(head, content, ttl + delay, delay, seal if pending.sealed else None)


def read_pending(message: Message, unseal: Seal) -> PendingDelivery:
    """Read a delivery; raises Unsealable."""
    line, _, rest = message.body.partition(b"\n")
    head = _pending_head.decode(line)
    content = _pending.decode(unseal(head.project, rest) if message.sealed else rest)
    notice = content.notice
    return PendingDelivery(
        notice=Notice(id=head.id, body=bytes(notice.body), ttl=notice.ttl, delay=notice.delay),
        address=Address(project=head.project, queue=head.queue),
        subscription_id=head.subscription,
        attempt=head.attempt,
        posted=head.posted,
        replayed=head.replayed,
        begun=head.begun,
        payload=content.payload,
        options=content.options,
        sealed=message.sealed,
        id=message.id,
    )


def push_message(ticket: Ticket, notice: Notice, ttl: int, seal: Seal) -> NewMessage:
    """Write a notice down for those who are connected."""
    content = _Notice(msgspec.Raw(notice.body), notice.ttl, notice.delay)
    head = _Head(ticket.address.project, ticket.address.queue)
    return _message(head, content, ttl, 0, seal if ticket.sealed else None)


def read_push(message: Message, unseal: Seal) -> Notice:
    """Read a notice; raises Unsealable."""
    line, _, rest = message.body.partition(b"\n")
    content = _notice.decode(unseal(_head.decode(line).project, rest) if message.sealed else rest)
    return Notice(id=message.id, body=bytes(content.body), ttl=content.ttl, delay=content.delay)


def notification(notice: Notice, queue: str) -> bytes:
    """Return what the protocol tells a subscriber, as JSON text."""
    document: dict[str, object] = {"ttl": notice.ttl, "body": msgspec.Raw(notice.body)}
    if notice.delay is not None:
        document["delay"] = notice.delay
    return msgspec.json.encode({**document, "Message_Type": "Notification", "queue_name": queue})


def _message(head: _Head, content: object, ttl: int, delay: int, seal: Seal | None) -> NewMessage:
    text = msgspec.json.encode(content)
    body = msgspec.json.encode(head) + b"\n" + (text if seal is None else seal(head.project, text))
    return NewMessage(body=body, ttl=ttl, delay=delay, sealed=seal is not None)
