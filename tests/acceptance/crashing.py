"""A process that works on a store until it dies, and says what it is about to do and what was answered.

Each line is a word (`try`, `ok`) and what it is about, as JSON: [operation, bodies]. Standard input has the posts that were not
answered to the one before, which are repeated with their keys first, and the number to go on from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from queues.models import Address, DeadLetter, Lease, Message, NewMessage, Once
from storage.registry import connect

PLAIN, TOLD, WORK, DEAD = (Address(project="p", queue=name) for name in ("plain", "told", "work", "dead"))
TTL = 3600
LEASE = 600


def say(word: str, *about: object) -> None:
    sys.stdout.write(f"{word} {json.dumps(about)}\n")
    sys.stdout.flush()


class Worker:
    """Does one operation after the other."""

    def __init__(self, uri: str) -> None:
        self.messages = connect(uri, timeout=5).messages

    def post(self, queue: str, key: str, bodies: Sequence[str]) -> None:
        """Post with an idempotency key, and with a ticket where there are subscribers."""
        address = Address(project="p", queue=queue)
        new = [NewMessage(body=body.encode(), ttl=TTL) for body in bodies]
        tickets = [NewMessage(body=json.dumps(list(bodies)).encode(), ttl=TTL)] if address == TOLD else ()
        once = Once(key=key, fingerprint=key.encode(), window=TTL)
        say("try", "post", queue, key, bodies)
        self.messages.post(address, new, now=self.messages.clock(), once=once, create=True, tickets=tickets)
        say("ok", "post", queue, key, bodies)

    def claim(self, address: Address, *, dead: bool = False) -> tuple[str, Sequence[Message]]:
        """Claim two messages; `dead` puts those aside that were claimed before."""
        letter = DeadLetter(address=DEAD, max_claims=1, ttl=None) if dead else None
        lease = Lease(ttl=LEASE, grace=60, limit=2, dead_letter=letter)
        say("try", "claim", address.queue)
        claim = self.messages.claim(address, lease, now=self.messages.clock()).claim
        say("ok", "claim", address.queue)
        return (claim.id, claim.messages) if claim else ("", ())

    def delete(self, address: Address, message: Message, claim: str) -> None:
        """Delete a message by its claim."""
        say("try", "delete", address.queue, [message.body.decode()])
        self.messages.delete(address, message.id, now=self.messages.clock(), claim_id=claim)
        say("ok", "delete", address.queue, [message.body.decode()])

    def release(self, address: Address, claim: str) -> None:
        """Give a claim back."""
        say("try", "release", address.queue)
        self.messages.release(address, claim, now=self.messages.clock())
        say("ok", "release", address.queue)

    def round(self, number: int) -> None:
        """Do some of everything."""
        for queue in ("plain", "told", "work"):
            self.post(queue, f"{queue}-{number}", [f"{queue}-{number}-{index}" for index in range(2)])
        claim, messages = self.claim(PLAIN)
        for message in messages[:1]:
            self.delete(PLAIN, message, claim)
        self.release(PLAIN, claim or "0" * 32)
        claim, _ = self.claim(WORK)
        self.release(WORK, claim or "0" * 32)
        self.claim(WORK, dead=True)


def main(uri: str, told: dict[str, Any]) -> None:
    """Work until the end."""
    worker = Worker(uri)
    for queue, key, bodies in told["repeat"]:
        worker.post(queue, key, bodies)
    number = told["number"]
    while True:
        worker.round(number)
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.stdin.readline()))
