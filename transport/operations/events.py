"""The operation on events."""

from __future__ import annotations

from queues.events import read
from queues.limits import MIN_TTL
from queues.models import Caller, Posted
from queues.service.messages import Draft
from transport import documents
from transport.dispatch import Operation
from transport.operations.queues import address_of
from transport.schemas.events import EventsPost
from transport.service import Service


def event_post(service: Service, caller: Caller, args: EventsPost) -> Posted:
    """Store events as messages, each once, however often it is sent; one that is over is taken and dropped."""
    address = address_of(caller, args.queue_name)
    most = service.settings.limits.max_message_ttl
    ids: list[str] = []
    for event in read(args.content_type, args.headers, args.body):
        ttl = event.ttl(service.clock())
        if ttl == 0:
            continue
        body = event.document
        documents.check(body)
        draft = Draft(body=body, ttl=None if ttl is None else min(max(ttl, MIN_TTL), most))
        ids += service.messages.post(caller, address, [draft], key=event.key).ids
    return Posted(ids=ids)


OPERATIONS = (Operation(name="event_post", rule="messages:create", arguments=EventsPost, run=event_post),)
