"""Operations on messages."""

from __future__ import annotations

from functools import partial

from msgspec import UNSET, UnsetType

from queues.errors import Invalid, MessageNotFound
from queues.models import Caller, Posted
from queues.service.messages import Draft, Page
from queues.service.waiting import Awaited
from transport.dispatch import Operation
from transport.operations.queues import address_of
from transport.schemas.messages import (
    MessageDelete,
    MessageDeleteMany,
    MessageGetMany,
    MessageList,
    MessagePost,
    MessageRef,
)
from transport.service import Service


def message_post(service: Service, caller: Caller, args: MessagePost) -> Posted:
    """Store messages, all or none."""
    drafts = [
        Draft(body=bytes(draft.body), ttl=_given(draft.ttl), delay=_given(draft.delay))
        for draft in args.messages
    ]
    address = address_of(caller, args.queue_name)
    admit(service, caller, len(drafts))
    return service.messages.post(caller, address, drafts, key=args.idempotency_key)


def admit(service: Service, caller: Caller, messages: int) -> None:
    """Count messages that are about to be posted. Raises TooManyRequests, QuotaExceeded."""
    service.rates.post(caller.project, messages)
    service.quotas.post(caller.project, messages)


def message_list(service: Service, caller: Caller, args: MessageList) -> Awaited[Page]:
    """Return a page of messages, oldest first; an empty one after the time that may be waited."""
    address = address_of(caller, args.queue_name)
    read = partial(
        service.messages.list,
        caller,
        address,
        marker=args.marker,
        limit=args.limit,
        echo=args.echo,
        include_claimed=args.include_claimed,
        include_delayed=args.include_delayed,
    )
    return service.waiting.until(address, read, has_messages, seconds=args.wait, alone=True)


def has_messages(page: Page) -> bool:
    """Whether there is anything on a page."""
    return bool(page.messages)


def message_get(service: Service, caller: Caller, args: MessageRef) -> Page:
    """Return one message."""
    page = service.messages.get(address_of(caller, args.queue_name), [args.message_id])
    if not page.messages:
        raise MessageNotFound
    return page


def message_get_many(service: Service, caller: Caller, args: MessageGetMany) -> Page:
    """Return those of the messages that exist."""
    return service.messages.get(address_of(caller, args.queue_name), args.message_ids)


def message_delete(service: Service, caller: Caller, args: MessageDelete) -> None:
    """Delete one message."""
    address = address_of(caller, args.queue_name)
    service.messages.delete(address, args.message_id, claim_id=args.claim_id)


def message_delete_many(service: Service, caller: Caller, args: MessageDeleteMany) -> Page | None:
    """Delete messages by id, or pop some and return them."""
    address = address_of(caller, args.queue_name)
    claims_matter = service.settings.wire.message_delete_with_claim_id
    if (args.message_ids is None) == (args.pop is None):
        raise Invalid("Either ids or pop is required, and not both.")
    if args.message_ids is None:
        if claims_matter and args.claim_ids is not None:
            raise Invalid("The claim_ids go with ids.")
        return service.messages.pop(address, args.pop or 0)
    if claims_matter and not args.claim_ids:
        raise Invalid("The claim_ids of the messages are required.")
    service.messages.delete_many(
        address, args.message_ids, claim_ids=args.claim_ids if claims_matter else None
    )
    return None


def _given(value: int | UnsetType) -> int | None:
    return None if value is UNSET else value


OPERATIONS = (
    Operation(name="message_post", rule="messages:create", arguments=MessagePost, run=message_post),
    Operation(name="message_list", rule="messages:get_all", arguments=MessageList, run=message_list),
    Operation(name="message_get", rule="messages:get", arguments=MessageRef, run=message_get),
    Operation(
        name="message_get_many", rule="messages:get_all", arguments=MessageGetMany, run=message_get_many
    ),
    Operation(name="message_delete", rule="messages:delete", arguments=MessageDelete, run=message_delete),
    Operation(
        name="message_delete_many",
        rule="messages:delete_all",
        arguments=MessageDeleteMany,
        run=message_delete_many,
    ),
)
