"""Operations on claims."""

from __future__ import annotations

from functools import partial

from queues.models import Caller
from queues.service.claims import SeenClaim
from queues.service.waiting import Awaited
from transport.dispatch import Operation
from transport.operations.queues import address_of
from transport.schemas.claims import ClaimCreate, ClaimRef, ClaimUpdate
from transport.service import Service


def claim_create(service: Service, caller: Caller, args: ClaimCreate) -> Awaited[SeenClaim | None]:
    """Lease the first messages that are free, or none if there are none in the time that may be waited."""
    address = address_of(caller, args.queue_name)
    claim = partial(service.claims.create, address, limit=args.limit, ttl=args.ttl, grace=args.grace)
    return service.waiting.until(address, claim, is_given, seconds=args.wait, alone=False)


def is_given(seen: SeenClaim | None) -> bool:
    """Whether a claim was had."""
    return seen is not None


def claim_get(service: Service, caller: Caller, args: ClaimRef) -> SeenClaim:
    """Return a live claim with its messages."""
    return service.claims.read(address_of(caller, args.queue_name), args.claim_id)


def claim_update(service: Service, caller: Caller, args: ClaimUpdate) -> None:
    """Renew a live claim."""
    address = address_of(caller, args.queue_name)
    service.claims.renew(address, args.claim_id, ttl=args.ttl, grace=args.grace)


def claim_delete(service: Service, caller: Caller, args: ClaimRef) -> None:
    """Release a claim."""
    service.claims.release(address_of(caller, args.queue_name), args.claim_id)


OPERATIONS = (
    Operation(name="claim_create", rule="claims:create", arguments=ClaimCreate, run=claim_create),
    Operation(name="claim_get", rule="claims:get", arguments=ClaimRef, run=claim_get),
    Operation(name="claim_update", rule="claims:update", arguments=ClaimUpdate, run=claim_update),
    Operation(name="claim_delete", rule="claims:delete", arguments=ClaimRef, run=claim_delete),
)
