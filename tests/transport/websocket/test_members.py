"""What a subscriber learns about where it stands among the messages of a queue."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from queues.models import Address, Notice, Push, Subscription
from queues.service.pushes import Position, Pushed
from transport.websocket.frames import Payload
from transport.websocket.streams import Frames, Member

GENERATION = "0123456789abcdef"


@dataclass
class Sink:
    """A connection that keeps what is pushed to it."""

    binary: bool = False
    taken: list[Any] = field(default_factory=list)

    def push(self, payload: Payload) -> None:
        self.taken.append(json.loads(payload))

    async def drained(self) -> None:
        """It takes everything at once."""

    def forget(self, subscription_id: str) -> None:
        raise AssertionError(subscription_id)

    def lost(self, subscription_id: str) -> None:
        raise AssertionError(subscription_id)


def test_a_heartbeat_tells_what_was_told_last_beside_how_far_it_has_come():
    """Whoever filters can tell what was held back from what got lost."""
    sink = Sink()
    subscription = Subscription(
        id="0123456789abcdef01234567",
        address=Address(project="blue", queue="q"),
        subscriber="http://node:9000/1",
        ttl=600,
        renewed=0,
        options={"sequence": True, "filter": {"exact": {"kind": "paid"}}},
        push=Push(node="n", connection="c", after=100, resumable=True),
    )
    member = Member(subscription, sink, Position(place=100, generation=GENERATION))

    for number, kind in enumerate(["paid", "seen", "seen"]):
        body = json.dumps({"kind": kind}).encode()
        notice = Notice(id=f"msg_{number}", body=body, ttl=60)
        pushed = Pushed(Position(place=101 + number, generation=GENERATION), notice)
        member.tell(pushed, Frames(pushed, "q"))
    member.beat()

    assert [(each["sequence"], each["previous"]) for each in sink.taken] == [(1, 0), (3, 1)]
    assert sink.taken[1] == {
        "Message_Type": "Heartbeat",
        "queue_name": "q",
        "subscription_id": subscription.id,
        "sequence": 3,
        "previous": 1,
    }
