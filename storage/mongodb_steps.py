"""The steps that transactions on a queue of MongoDB's are made of; see `storage.mongodb_queue`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bson.binary import Binary
from pymongo import UpdateMany

from queues.errors import KeyReused
from queues.identity import message_id, new_claim_id
from queues.models import Claim, DeadLetter, Lease, NewMessage, Once, Posted
from storage.mongodb_header import AWAY, NEVER, QueueHeader, message_key, place_in
from storage.mongodb_link import BY_CLAIM, BY_DELAY, BY_EXPIRY, CLAIMED, DELAYED, READY, Document
from storage.mongodb_queue import QueueWork
from storage.mongodb_transfers import drop_queue


def ids_from(queue: QueueHeader, first: int, count: int) -> list[str]:
    """Return the ids of some places in a row."""
    return [message_id(place, queue.gen) for place in range(first, first + count)]


def due_of(message: NewMessage, now: int) -> int:
    """Return when something falls due with a new message (ms): the end of its delay, or its expiry."""
    expires = message.life_from(now).expires
    return min(expires, now + message.delay * 1000) if message.delay else expires


def append(work: QueueWork, queue: QueueHeader, message: NewMessage, now: int) -> None:
    """Put a message at the end."""
    if queue.free + queue.claimed == 0:
        queue.only = message.client_id
    elif queue.only != message.client_id:
        queue.only = None
    queue.last += 1
    queue.free += 1
    queue.tell()
    life, visible = message.life_from(now), now + message.delay * 1000
    queue.expect(due_of(message, now))
    work.touch(queue, "m", [queue.last])
    work.insert(
        {
            "_id": message_key(queue.pile, queue.last),
            "pile": queue.pile,
            "seq": queue.last,
            "st": DELAYED if message.delay else READY,
            "cr": life.created,
            "ex": life.expires,
            "vi": visible,
            "cl": message.client_id,
            "se": message.sealed,
            "n": 0,
            "b": Binary(message.body),
        }
    )


def repeated(work: QueueWork, queue: QueueHeader, once: Once, now: int) -> Posted | None:
    """Return what an earlier post with the same key answered, or None; raises KeyReused."""
    found = work.database.once.find_one({"_id": {"h": queue.gen, "k": once.key}}, session=work.session)
    if found is None or found["ex"] <= now:
        return None
    if found["fp"] != once.fingerprint:
        raise KeyReused
    return Posted(ids=ids_from(queue, found["first"], found["count"]), repeated=True)


def remember(work: QueueWork, queue: QueueHeader, once: Once, first: int, count: int, now: int) -> None:
    """Remember a post under its key."""
    work.touch(queue, "o", [once.key])
    work.database.once.replace_one(
        {"_id": {"h": queue.gen, "k": once.key}},
        {"fp": Binary(once.fingerprint), "first": first, "count": count, "ex": now + once.window * 1000},
        upsert=True,
        session=work.session,
    )


def locate(work: QueueWork, queue: QueueHeader, ids: Iterable[str]) -> list[Document]:
    """Return key, state and claim of those of the messages that exist."""
    wanted = {"_id": {"$in": queue.places(ids)}}
    return list(work.database.message.find(wanted, {"st": 1, "c": 1}, session=work.session))


def find_claim(work: QueueWork, queue: QueueHeader, claim_id: str) -> Document | None:
    """Return a live claim of a queue that is up to date."""
    return work.database.claim.find_one({"_id": claim_id, "pile": queue.pile}, session=work.session)


def remove(work: QueueWork, queue: QueueHeader, found: Sequence[Document]) -> None:
    """Delete messages."""
    if not found:
        return
    work.touch(queue, "m", (place_in(each["_id"]) for each in found))
    work.database.message.delete_many({"_id": {"$in": [each["_id"] for each in found]}}, session=work.session)
    claimed = sum(each["st"] == CLAIMED for each in found)
    queue.claimed -= claimed
    queue.free -= len(found) - claimed


def remove_held(work: QueueWork, queue: QueueHeader, id_: str, claim_id: str) -> bool:
    """Delete a message if that claim holds it, of a queue that is not about to move; tell whether it did."""
    wanted = {"_id": {"$in": queue.places([id_])}, "st": CLAIMED, "c": claim_id}
    count = work.database.message.delete_many(wanted, session=work.session).deleted_count
    queue.claimed -= count
    return count > 0


def bury(work: QueueWork, queue: QueueHeader, doomed: Sequence[Document], dead: DeadLetter, now: int) -> None:
    """Move messages to the end of their dead-letter queue."""
    target = work.queue(dead.address) or work.create(dead.address)
    target.only = None
    target.tell()
    remove(work, queue, doomed)
    work.ready(queue).took(doomed)
    for each in doomed:
        target.last += 1
        target.free += 1
        moved = {
            **each,
            "_id": message_key(target.pile, target.last),
            "pile": target.pile,
            "seq": target.last,
            "n": 0,
        }
        if dead.ttl is not None:
            moved |= {"cr": now, "ex": now + dead.ttl * 1000}
        target.expect(moved["ex"])
        work.touch(target, "m", [target.last])
        work.insert(moved)


def take_lease(
    work: QueueWork, queue: QueueHeader, ready: Sequence[Document], lease: Lease, now: int
) -> Claim:
    """Give messages to a new claim, and count that they are handed out."""
    id_, until = new_claim_id(), now + lease.ttl * 1000
    # First of all, for what cannot be read is refused, and a refusal must not have changed anything.
    messages = [
        queue.message(
            {
                **each,
                "c": id_,
                "n": each["n"] + 1,
                "ex": each["ex"] if each["ex"] >= until else until + lease.grace * 1000,
            }
        )
        for each in ready
    ]
    work.ready(queue).took(ready)
    work.touch(queue, "m", (each["seq"] for each in ready))
    work.touch(queue, "c", [id_])
    extended = {"$cond": [{"$lt": ["$ex", until]}, until + lease.grace * 1000, "$ex"]}
    work.lease(
        UpdateMany(
            {"_id": {"$in": [each["_id"] for each in ready]}},
            [{"$set": {"st": CLAIMED, "c": id_, "n": {"$add": ["$n", 1]}, "ex": extended}}],
        ),
        {"_id": id_, "pile": queue.pile, "ttl": lease.ttl, "cr": now, "ex": until},
    )
    queue.free -= len(ready)
    queue.claimed += len(ready)
    queue.expect(until)
    return Claim(id=id_, ttl=lease.ttl, renewed=now, expires=until, messages=messages)


def messages_of(queue: QueueHeader, claims: Sequence[str]) -> Document:
    """Return what finds the messages of claims, without those that an earlier stay of the queue left."""
    return {"c": {"$in": claims}, "pile": queue.pile}


def end_claims(work: QueueWork, queue: QueueHeader, claims: Sequence[str]) -> int:
    """End claims; return how many messages they held."""
    work.touch(queue, "c", claims)
    work.touch_documents(queue, messages_of(queue, claims), hint=BY_CLAIM)
    change = {"$set": {"st": READY}, "$unset": {"c": ""}}
    count = work.database.message.update_many(
        messages_of(queue, claims), change, hint=BY_CLAIM, session=work.session
    ).modified_count
    work.database.claim.delete_many({"_id": {"$in": claims}}, session=work.session)
    queue.claimed -= count
    queue.free += count
    if count:
        queue.back()
    return count


def settle(work: QueueWork, queue: QueueHeader, now: int, limit: int) -> int:
    """Let take place what fell due, about `limit` messages of it; return how many things that was."""
    messages, claims, session = work.database.message, work.database.claim, work.session
    overdue = {"pile": queue.pile, "ex": {"$lte": now}}
    # Without a hint the planner judges by the first hundred, and may then go through the whole queue.
    expired = list(messages.find(overdue, {"st": 1}, session=session).hint(BY_EXPIRY).limit(limit))
    remove(work, queue, expired)
    over = [each["_id"] for each in claims.find(overdue, {"_id": 1}, session=session).limit(limit)]
    freed = end_claims(work, queue, over) if over else 0
    mature = {"pile": queue.pile, "st": DELAYED, "vi": {"$lte": now}}
    work.touch_documents(queue, mature, hint=BY_DELAY)
    ready = {"$set": {"st": READY}}
    matured = messages.update_many(mature, ready, hint=BY_DELAY, session=session).modified_count
    if matured:
        queue.back()
    queue.due = _next_due(work, queue)
    return len(expired) + len(over) + freed + matured


def settle_some(work: QueueWork, now: int, limit: int) -> int:
    """Bring the queue of a transaction up to date, about `limit` messages of it; return how many things that was."""
    queue = work.header()
    if queue is None or queue.due > now:
        return 0
    if queue.shut == AWAY:  # what moved away is forgotten
        drop_queue(work, queue)
        return 0
    work.flush_messages()
    return settle(work, queue, now, limit)


def _next_due(work: QueueWork, queue: QueueHeader) -> int:
    session = work.session

    def first(collection: Any, field: str, **more: int) -> int:  # noqa: ANN401
        found = collection.find_one(
            {"pile": queue.pile, **more}, {field: 1}, sort=[(field, 1)], session=session
        )
        return found[field] if found else NEVER

    messages = work.database.message
    return min(first(messages, "ex"), first(work.database.claim, "ex"), first(messages, "vi", st=DELAYED))
