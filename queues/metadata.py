"""The metadata of a queue: what is reserved in it, what it means, how it is changed.

Metadata is one JSON object. A few keys that begin with an underscore are reserved:
they set limits and behaviour. All others are the owner's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from queues.errors import Invalid, MissingKey
from queues.limits import MIN_TTL, Limits, is_queue_name
from queues.models import Address, DeadLetter, Json, JsonObject

#: Members of `_retry_policy` and what they are where they are absent. Seconds, or numbers of tries.
RETRY_DEFAULTS: Mapping[str, Json] = {
    "retries_with_no_delay": 3,
    "minimum_delay_retries": 3,
    "minimum_delay": 5,
    "maximum_delay": 30,
    "maximum_delay_retries": 3,
    "retry_backoff_function": "linear",
    "ignore_subscription_override": False,
}

_BACKOFFS = ("linear", "arithmetic", "geometric", "exponential")
_LEAST_SPREAD = 10  # seconds between the minimum and the maximum delay


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePolicy:
    """What the reserved attributes of a queue come down to."""

    message_ttl: int  # seconds, of a message whose post names none
    message_delay: int  # seconds, of a message whose post names none; 0 for none
    max_post_size: int  # bytes
    encrypted: bool  # whether new messages are encrypted at rest
    dead_letter: DeadLetter | None  # where messages go that were claimed too often


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One step of a JSON patch."""

    op: Literal["add", "replace", "remove"]
    key: str  # of the metadata
    value: Json = None  # unused by remove


def defaults(limits: Limits) -> JsonObject:
    """Return the seven reserved attributes that every queue shows."""
    return {
        "_max_messages_post_size": limits.max_messages_post_size,
        "_default_message_ttl": limits.default_message_ttl,
        "_default_message_delay": limits.default_message_delay,
        "_dead_letter_queue": None,
        "_dead_letter_queue_messages_ttl": None,
        "_max_claim_count": None,
        "_enable_encrypt_messages": False,
    }


#: The reserved attributes that a topic shows.
TOPIC_ATTRIBUTES = ("_max_messages_post_size", "_default_message_ttl", "_default_message_delay")


def with_defaults(
    metadata: JsonObject, limits: Limits, *, attributes: Collection[str] | None = None
) -> JsonObject:
    """Return metadata in which each reserved attribute that is missing, or empty, has its default.

    `attributes` are those to show; None means all.
    """
    complete = dict(metadata)
    for key, value in defaults(limits).items():
        if attributes is None or key in attributes:
            complete[key] = complete.get(key) or value
    return complete


def policy_of(address: Address, metadata: JsonObject, limits: Limits) -> QueuePolicy:
    """Return what valid metadata mean for the queue at an address."""
    name, max_claims = metadata.get("_dead_letter_queue"), metadata.get("_max_claim_count")
    dead_letter = None
    if name and max_claims and name != address.queue:
        dead_letter = DeadLetter(
            address=Address(project=address.project, queue=name),
            max_claims=max_claims,
            ttl=metadata.get("_dead_letter_queue_messages_ttl"),
        )
    most = limits.max_messages_post_size
    return QueuePolicy(
        # An operator may have lowered a maximum since the owner set the default.
        message_ttl=min(
            limits.max_message_ttl, metadata.get("_default_message_ttl") or limits.default_message_ttl
        ),
        message_delay=min(
            limits.max_message_delay, metadata.get("_default_message_delay") or limits.default_message_delay
        ),
        max_post_size=min(most, metadata.get("_max_messages_post_size") or most),
        encrypted=bool(metadata.get("_enable_encrypt_messages")),
        dead_letter=dead_letter,
    )


def schema(limits: Limits) -> JsonObject:
    """Return the JSON Schema of a queue's metadata. Null means unset everywhere."""

    def integer(low: int, high: int | None = None) -> JsonObject:
        bounds = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
        return {"type": ["integer", "null"], **bounds}

    return {
        "type": "object",
        "properties": {
            "_default_message_ttl": integer(MIN_TTL, limits.max_message_ttl),
            "_max_messages_post_size": integer(1, limits.max_messages_post_size),
            "_default_message_delay": integer(0, limits.max_message_delay),
            "_max_claim_count": integer(1),
            "_dead_letter_queue": {"type": ["string", "null"], "format": "queue-name"},
            "_dead_letter_queue_messages_ttl": integer(MIN_TTL, limits.max_message_ttl),
            "_enable_encrypt_messages": {"type": ["boolean", "null"]},
            "_flavor": {"type": ["string", "null"]},
            "_retry_policy": {
                "type": ["object", "null"],
                "properties": {
                    "retries_with_no_delay": integer(0),
                    "minimum_delay_retries": integer(0),
                    "minimum_delay": integer(0),
                    "maximum_delay": integer(0),
                    "maximum_delay_retries": integer(0),
                    "retry_backoff_function": {"enum": [*_BACKOFFS, None]},
                    "ignore_subscription_override": {"type": ["boolean", "null"]},
                },
            },
        },
    }


def validate(metadata: JsonObject, limits: Limits) -> None:
    """Raise Invalid, naming the attribute, unless the reserved attributes keep the rules."""
    error = best_match(_validator(limits).iter_errors(metadata))
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path)
        raise Invalid(f"The attribute {where} is not acceptable: {_explain(error.validator, error.schema)}.")
    name = metadata.get("_dead_letter_queue")
    if name is not None and not is_queue_name(name):
        raise Invalid("The attribute _dead_letter_queue is not acceptable: it must be the name of a queue.")
    check_retry_policy(metadata.get("_retry_policy") or {})


def check_retry_policy(policy: JsonObject) -> None:
    """Raise Invalid unless the delays of a retry policy, defaults filled in, are far enough apart."""
    given = {key: value for key, value in policy.items() if value is not None}
    complete = {**RETRY_DEFAULTS, **given}
    if complete["maximum_delay"] - complete["minimum_delay"] < _LEAST_SPREAD:
        raise Invalid(
            f"The attribute _retry_policy is not acceptable: maximum_delay must be at least {_LEAST_SPREAD}"
            " seconds more than minimum_delay."
        )


def parse_changes(document: Json) -> list[Change]:
    """Read a JSON patch; raises Invalid for one that is malformed."""
    if not isinstance(document, list):
        raise Invalid("The patch must be a list of operations.")
    return [_parse_change(entry) for entry in document]


def apply_changes(metadata: JsonObject, changes: list[Change]) -> JsonObject:
    """Return changed metadata.

    A reserved attribute counts as there even if it is not stored.

    Raises MissingKey for replacing or removing a key that is not there.
    """
    changed = dict(metadata)
    reserved = defaults(Limits())
    for change in changes:
        if change.op != "add" and change.key not in changed and change.key not in reserved:
            raise MissingKey(f"The metadata have no key {change.key!r} to {change.op}.")
        if change.op == "remove":
            changed.pop(change.key, None)
        else:
            changed[change.key] = change.value
    return changed


def _parse_change(entry: Json) -> Change:
    if not isinstance(entry, dict):
        raise Invalid("Each operation of the patch must be an object.")
    op = entry.get("op")
    if op not in ("add", "replace", "remove"):
        raise Invalid("The op of each operation must be add, replace or remove.")
    if op != "remove" and "value" not in entry:
        raise Invalid(f"An operation {op} needs a value.")
    key = _parse_pointer(entry.get("path"))
    return Change(op=cast(Literal["add", "replace", "remove"], op), key=key, value=entry.get("value"))


def _parse_pointer(path: Json) -> str:
    """Return the key that `/metadata/<key>` names; RFC 6901 with blanks around tokens ignored."""
    if not isinstance(path, str) or not path.startswith("/") or re.search(r"~(?![01])", path):
        raise Invalid("The path of each operation must be a JSON pointer, /metadata/<key>.")
    tokens = [token.strip().replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]
    if len(tokens) != 2 or not all(tokens) or tokens[0].lower() != "metadata":
        raise Invalid("The path of each operation must be /metadata/<key>.")
    return tokens[1]


@lru_cache(maxsize=8)
def _validator(limits: Limits) -> Validator:
    # In JSON Schema 60.0 is an integer; in this protocol it is not.
    checker = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    kind: type[Validator] = extend(Draft202012Validator, type_checker=checker)  # type: ignore[no-untyped-call]
    return kind(schema(limits))


def _explain(rule: object, broken: Json) -> str:
    """Say in a sentence what a schema's rule demands."""
    if rule == "enum":
        return "it must be one of " + ", ".join(str(value) for value in broken["enum"] if value)
    kind = broken["type"][0]
    article = "an" if kind[0] in "aeiou" else "a"
    if "maximum" in broken:
        return f"it must be {article} {kind} from {broken['minimum']} to {broken['maximum']}"
    if "minimum" in broken:
        return f"it must be {article} {kind} of at least {broken['minimum']}"
    return f"it must be {article} {kind}"
