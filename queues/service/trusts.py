"""The trusts of subscriptions whose subscribers want to see a token of Keystone's.

With each of its messages such a subscriber gets a token of whoever subscribed it. The
service can have one because that person trusts it to, until the subscription ends.
"""

from __future__ import annotations

from queues.errors import Invalid
from queues.models import Json, JsonObject
from queues.ports import Trusts

TRUSTING = ("trust+http", "trust+https")  # the schemes of those who want a token
TRUST_ID = "trust_id"  # the option that keeps a trust; no client ever gives it

_PREFIX = "trust+"


class TrustKeeper:
    """Gets trusts for subscriptions, and ends them; without `trusts` there are none."""

    def __init__(self, trusts: Trusts | None) -> None:
        self._trusts = trusts

    def grant(self, subscriber: str, token: str | None, *, expires: int) -> str | None:
        """Return the id of a new trust that lasts until then (ms); None for who wants no token.

        Raises Invalid where there is no Keystone, or the caller has no token of its; what `Trusts.create` raises.
        """
        if not is_trusting(subscriber):
            return None
        if self._trusts is None:
            raise Invalid("This service has no Keystone, which a trust+ subscriber needs.")
        if token is None:
            raise Invalid(
                "A trust+ subscriber needs a token of Keystone's in X-Auth-Token, to make a trust with."
            )
        return self._trusts.create(token, expires=expires)

    def end(self, trust_id: Json) -> None:
        """End a trust, if it is one."""
        if self._trusts is not None and isinstance(trust_id, str):
            self._trusts.remove(trust_id)


def is_trusting(subscriber: str) -> bool:
    """Whether a subscriber (a URI) wants a token."""
    return subscriber.lower().startswith(_PREFIX)


def with_trust(options: JsonObject, trust_id: str | None) -> JsonObject:
    """Return a subscription's options with this trust, or with none."""
    others = {name: value for name, value in options.items() if name != TRUST_ID}
    return others if trust_id is None else {**others, TRUST_ID: trust_id}
