"""The operation on events."""

from __future__ import annotations

from collections.abc import Iterable

from queues.errors import Invalid
from queues.events import Event, read
from queues.limits import MIN_TTL
from queues.models import Address, Caller, Posted
from queues.service.messages import Draft
from transport.dispatch import Operation
from transport.operations.messages import admit
from transport.operations.queues import address_of
from transport.schemas.events import EventsPost
from transport.service import Service

_EVENT = b"event"  # source and id say whether an event is a repeat, not what else is in it


def event_post(service: Service, caller: Caller, args: EventsPost) -> Posted:
    """Store events as messages, each once, however often it is sent."""
    address = address_of(caller, args.queue_name)
    events = list(read(args.content_type, args.headers, args.body))
    admit(service, caller, len(events))
    return store_events(service, caller, address, events)


def store_events(service: Service, caller: Caller, address: Address, events: Iterable[Event]) -> Posted:
    """Post events one by one, each with a key of its own; one that is over already is dropped.

    Raises Invalid, before anything is stored, for an event that is too large for the queue.
    """
    drafts = [
        (event.key, Draft(body=event.document, ttl=_lifetime(service, ttl)))
        for event in events
        if (ttl := event.ttl(service.clock())) != 0
    ]
    most = service.messages.max_post_size(address)
    if any(len(draft.body) > most for _, draft in drafts):
        raise Invalid(f"An event must have at most {most} bytes, written as JSON.")
    posted = [
        service.messages.post(caller, address, [draft], key=key, fingerprint=_EVENT) for key, draft in drafts
    ]
    return Posted(ids=[id_ for each in posted for id_ in each.ids])


def _lifetime(service: Service, ttl: int | None) -> int | None:
    return None if ttl is None else min(max(ttl, MIN_TTL), service.settings.limits.max_message_ttl)


OPERATIONS = (Operation(name="event_post", rule="messages:create", arguments=EventsPost, run=event_post),)
