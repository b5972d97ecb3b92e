"""What is asked of a release when it is recorded: first what makes the data, then what reads and changes them.

Ids in a path are those of the answers before: `{claim}` is what the step named `claim` answered. Time stands still but for
the steps that move it on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.acceptance.processes import CLIENT, PROJECT

OTHER_CLIENT = "5b2a4c1e-7c0f-4f7e-9a53-1c2d3e4f5a6b"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request."""

    method: str
    path: str  # without the query
    query: str = ""
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    client: str = CLIENT
    project: str = PROJECT
    name: str = ""  # by which later steps call the id that it answers


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The clock goes on."""

    milliseconds: int


Step = Ask | Wait


def _put(queue: str, **metadata: object) -> Ask:
    return Ask(method="PUT", path=f"/v2/queues/{queue}", body=metadata)


def _post(queue: str, *messages: object, key: str = "", client: str = CLIENT, name: str = "") -> Ask:
    documents = [message if isinstance(message, dict) else {"body": message} for message in messages]
    headers = {"Idempotency-Key": key} if key else {}
    return Ask(
        method="POST",
        path=f"/v2/queues/{queue}/messages",
        body={"messages": documents},
        headers=headers,
        client=client,
        name=name,
    )


def _claim(queue: str, limit: int, *, ttl: int = 3600, name: str = "") -> Ask:
    return Ask(
        method="POST",
        path=f"/v2/queues/{queue}/claims",
        query=f"limit={limit}",
        body={"ttl": ttl, "grace": 3600},
        name=name,
    )


def _get(path: str, query: str = "") -> Ask:
    return Ask(method="GET", path=f"/v2/{path}", query=query)


def _list(queue: str) -> Ask:
    return _get(f"queues/{queue}/messages", "echo=true&include_claimed=true&include_delayed=true&limit=20")


_LONG = 1_000_000  # seconds

#: Makes the data.
WRITES: list[Step] = [
    _put("plain", colour="blue", _default_message_ttl=_LONG),
    _put("sealed", _enable_encrypt_messages=True),
    _put("work", _max_claim_count=2, _dead_letter_queue="dead", _dead_letter_queue_messages_ttl=_LONG),
    _put("empty"),
    _post("plain", "one", 2, {"body": {"three": [3, None, True, "\u00fc"]}, "ttl": _LONG}, key="first"),
    _post("plain", "of another client", client=OTHER_CLIENT),
    _post("plain", {"body": "much later", "delay": 900, "ttl": _LONG}, {"body": "soon over", "ttl": 60}),
    Ask(method="DELETE", path="/v2/queues/plain/messages", query="pop=1"),
    _claim("plain", 1, name="held"),
    _post("sealed", "secret", {"body": {"secret": True}}),
    _post("work", "a", "b", "c", key="work"),
    _claim("work", 1, ttl=60, name="first"),
    Wait(milliseconds=61_000),
    _claim("work", 1, ttl=60, name="second"),
    Wait(milliseconds=61_000),
    _claim("work", 2, name="work"),
    Ask(
        method="POST",
        path="/v2/queues/told/subscriptions",
        body={"subscriber": "http://127.0.0.1:9/hook", "ttl": _LONG, "options": {"a": {"b": [1]}}},
        name="hook",
    ),
    Ask(
        method="POST",
        path="/v2/queues/told/subscriptions",
        body={"subscriber": "mailto:nobody@example.org", "ttl": _LONG},
        name="mail",
    ),
    _post("told", "a ticket waits"),
    _post("gone", "purged"),
    Ask(method="POST", path="/v2/queues/gone/purge", body={"resource_types": ["messages"]}),
    _post("gone", "after the purge"),
    Ask(method="PUT", path="/v2/topics/topic", body={"a": "b"}),
    Ask(method="PUT", path="/v2/queues/theirs", body={"a": 1}, project="other"),
]

#: Reads and changes them.
READS: list[Step] = [
    _get("queues", "detailed=true"),
    Ask(method="GET", path="/v2/queues", project="other"),
    *(_get(f"queues/{queue}") for queue in ("plain", "work", "sealed", "told", "never")),
    *(
        _get(f"queues/{queue}/stats")
        for queue in ("plain", "work", "dead", "sealed", "told", "gone", "empty")
    ),
    *(_list(queue) for queue in ("plain", "work", "dead", "sealed", "told", "gone")),
    Ask(method="GET", path="/v2/queues/plain/messages"),
    _get("queues/plain/claims/{held}"),
    _get("queues/work/claims/{work}"),
    _get("queues/work/claims/{first}"),
    _get("queues/told/subscriptions"),
    _get("queues/told/subscriptions/{hook}"),
    _get("queues/told/subscriptions/{hook}/status"),
    _get("topics/topic"),
    # The same key again, and for something else.
    _post("plain", "one", 2, {"body": {"three": [3, None, True, "\u00fc"]}, "ttl": _LONG}, key="first"),
    _post("plain", "something else", key="first"),
    _post("work", "d"),
    _post("told", "another ticket"),
    Ask(method="PATCH", path="/v2/queues/plain/claims/{held}", body={"ttl": 7200, "grace": 60}),
    _get("queues/plain/claims/{held}"),
    Ask(method="DELETE", path="/v2/queues/work/claims/{work}"),
    _claim("work", 20, name="again"),
    _get("queues/work/claims/{again}"),
    _get("queues/dead/stats"),
    _claim("sealed", 5, name="opened"),
    Ask(method="DELETE", path="/v2/queues/dead/messages", query="pop=5"),
    Wait(milliseconds=900_000),
    _list("plain"),
    _get("queues/plain/stats"),
    Ask(
        method="PATCH",
        path="/v2/queues/told/subscriptions/{hook}",
        body={"ttl": 3600, "options": {"c": 1}},
    ),
    _get("queues/told/subscriptions/{hook}"),
    Ask(method="DELETE", path="/v2/queues/told/subscriptions/{mail}"),
    _get("queues/told/subscriptions"),
    Ask(method="DELETE", path="/v2/queues/gone"),
    _get("queues"),
    _get("queues/gone/stats"),
]
