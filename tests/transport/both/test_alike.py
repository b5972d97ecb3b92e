"""Whatever is asked, in whatever order, comes to the same over every transport."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storage.pooling import OpenStores
from storage.registry import connect
from tests.acceptance.fuzzing import examples
from tests.transport.both.dialects import DIALECTS, Speaker, speaker
from tests.transport.conftest import ANOTHER_CLIENT, CLIENT, PROJECT, Client, Clock
from transport.settings import Settings
from transport.wiring import assemble
from transport.wsgi.app import create_app

_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{24}").fullmatch

texts = st.sampled_from(["a", "red", "\u00e9", "x" * 70, "1"])
queues = st.sampled_from(["q1", "q1", "q1", "q2", "dead", "Nice-Bo@t"])
bodies = st.sampled_from([None, 1, "a", {"a": ["\u00e9"]}, "x" * 300])
seconds = st.sampled_from([60, 60, 90, 3600, 59, 0, -1, 43201, 1209601])
limits = st.sampled_from([1, 2, 20, 0, 21])
booleans = st.booleans()
ids = st.integers(0, 5).map(lambda number: f"ID{number}")  # the one that was seen so many before the last
id_lists = st.lists(ids, min_size=1, max_size=3)
claim_ids = st.sampled_from(["CLAIM", "CLAIM", "ID0", "nonsense"])
message_ids = st.one_of(ids, st.sampled_from(["MESSAGE", "MESSAGE", "nonsense"]))
metadata = st.fixed_dictionaries(
    {},
    optional={
        "colour": texts,
        "_default_message_ttl": seconds,
        "_max_claim_count": st.sampled_from([1, 2, -1]),
        "_dead_letter_queue": st.sampled_from(["dead", "no/name"]),
        "_max_messages_post_size": st.sampled_from([200, 262144, 0]),
        "_enable_encrypt_messages": booleans,
    },
)
messages = st.lists(
    st.fixed_dictionaries({}, optional={"body": bodies, "ttl": seconds})
    | st.fixed_dictionaries({"body": bodies}),
    max_size=3,
)
changes = st.lists(
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["add", "remove", "replace", "move"]),
            "path": st.sampled_from(["/metadata/colour", "/metadata/_max_claim_count", "/metadata", "/a"]),
        },
        optional={"value": texts | st.integers(-1, 3)},
    ),
    max_size=2,
)


def asking(operation: str, needed: dict[str, Any], **optional: Any) -> st.SearchStrategy[tuple[str, Any]]:
    """Return what draws a request for an operation on a queue."""
    return st.fixed_dictionaries({"queue_name": queues, **needed}, optional=optional).map(
        lambda arguments: (operation, arguments)
    )


REQUESTS = st.one_of(
    asking("message_post", {"messages": messages}, idempotency_key=st.sampled_from(["k1", "k2", "a b"])),
    asking("message_post", {"messages": messages}),
    asking("claim_create", {}, ttl=seconds, grace=seconds, limit=limits),
    asking("message_delete", {"message_id": message_ids}, claim_id=claim_ids),
    st.sampled_from([30, 60, 600]).map(lambda passed: ("wait", passed)),
    asking("queue_create", {}, metadata=metadata),
    asking("queue_update", {"changes": changes}),
    asking("queue_delete", {}),
    asking("queue_get_stats", {}),
    asking("queue_purge", {}, resource_types=st.lists(st.sampled_from(["messages", "subscriptions", "x"]))),
    asking(
        "message_list",
        {"echo": booleans},
        limit=limits,
        marker=st.one_of(ids, texts),
        include_claimed=booleans,
    ),
    asking("message_get", {"message_id": message_ids}),
    asking("message_get_many", {"message_ids": id_lists}),
    asking("message_delete_many", {}, message_ids=id_lists, pop=limits),
    asking("claim_get", {"claim_id": claim_ids}),
    asking("claim_update", {"claim_id": claim_ids}, ttl=seconds, grace=seconds),
    asking("claim_delete", {"claim_id": claim_ids}),
    asking(
        "subscription_create",
        {"subscriber": st.sampled_from(["http://a.example.org/", "http://b.example.org/", "x"])},
        ttl=seconds,
        options=st.sampled_from([{}, {"filter": 5}, {"a": 1}]),
    ),
    asking("subscription_list", {}, limit=st.sampled_from([20, 0, 21])),
    asking("subscription_get", {"subscription_id": ids}),
    asking("subscription_update", {"subscription_id": ids}, ttl=seconds),
    asking("subscription_confirm", {"subscription_id": ids, "confirmed": booleans}),
    asking("subscription_delete", {"subscription_id": ids}),
)


class Story:
    """What one dialect makes of the same requests; ids have names by their order of appearance."""

    def __init__(self, stack: ExitStack, dialect: str) -> None:
        self.clock = Clock()
        driver = connect("memory:", timeout=5.0, clock=self.clock)
        stack.callback(driver.close)
        settings = Settings(store="memory:", encryption={"keys": ["k1:" + "A" * 43 + "="]})  # type: ignore[arg-type]
        stores = OpenStores(timeout=5.0, clock=self.clock)
        service = assemble(settings, driver, clock=self.clock, stores=stores)
        api = Client(
            service=service, app=create_app(service), headers={"Client-ID": CLIENT, "X-Project-ID": PROJECT}
        )
        self._speaker = speaker(api, dialect)
        self._names: dict[str, str] = {}
        self._latest = {"MESSAGE": "none", "CLAIM": "none"}

    def tell(self, operation: str, arguments: Any, *, another: bool) -> Any:
        """Ask for something, and return what came of it, in words that do not depend on chance."""
        if operation == "wait":
            self.clock.advance(arguments)
            return None
        client: Speaker = self._speaker.saying(Client_ID=ANOTHER_CLIENT) if another else self._speaker
        status, value = client.ask(operation, **{name: self._meant(each) for name, each in arguments.items()})
        if operation == "message_post" and status == 201:
            self._latest["MESSAGE"] = value[-1]
        if operation == "claim_create" and status == 201:
            self._latest["CLAIM"] = value["claim_id"]
            self._latest["MESSAGE"] = value["messages"][0]["id"]
        # A subscriber that waits for its confirmation is told the same id again over REST, and 409 here.
        known = operation == "subscription_create" and status == 201 and value in self._names
        if known or (operation == "subscription_create" and status == 409):
            return "taken"
        if operation == "subscription_list" and status == 200:  # in the order of ids, which are drawn
            value = sorted(value, key=lambda found: str(found["subscriber"]))
        return status, self._named(value)

    def end(self) -> Iterator[Any]:
        """Return all that there is in the end."""
        for queue in ("q1", "q2", "dead"):
            listing = {"queue_name": queue, "echo": True, "include_claimed": True, "include_delayed": True}
            yield self.tell("message_list", {**listing, "limit": 20}, another=False)
            for operation in ("queue_get", "queue_get_stats", "subscription_list"):
                yield self.tell(operation, {"queue_name": queue}, another=False)
        yield self.tell("queue_list", {"detailed": True, "with_count": True}, another=False)

    def _meant(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._meant(each) for each in value]
        if value in self._latest if isinstance(value, str) else False:
            return self._latest[value]
        if isinstance(value, str) and value.startswith("ID"):
            seen = [*self._names]
            return seen[-1 - int(value[2:])] if len(seen) > int(value[2:]) else "unseen"
        return value

    def _named(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._named(each) for each in value]
        if isinstance(value, dict):
            return {name: self._named(each) for name, each in value.items()}
        if isinstance(value, str) and _ID(value):
            return self._names.setdefault(value, f"#{len(self._names)}")
        return value


@examples(100)
@given(requests=st.lists(st.tuples(REQUESTS, st.booleans()), min_size=1, max_size=20))
def test_every_dialect_tells_the_same_story(requests: list[tuple[tuple[str, Any], bool]]) -> None:
    with ExitStack() as stack:
        first, *others = (Story(stack, dialect) for dialect in DIALECTS)
        for (operation, arguments), another in requests:
            told = first.tell(operation, arguments, another=another)
            for other in others:
                assert other.tell(operation, arguments, another=another) == told, operation
        expected = [*first.end()]
        for other in others:
            assert [*other.end()] == expected
