"""Who may do what: the one table of access rules, for every transport.

The names are those of the Zaqar v2 policies. An operator can ask for another
role in the settings, section `access`.
"""

from __future__ import annotations

from collections.abc import Mapping

from queues.errors import Denied
from queues.models import Caller, Role

RULES: Mapping[str, Role] = {
    "queues:get_all": Role.READER,
    "queues:create": Role.MEMBER,
    "queues:get": Role.READER,
    "queues:delete": Role.MEMBER,
    "queues:update": Role.MEMBER,
    "queues:stats": Role.READER,
    "queues:share": Role.MEMBER,
    "queues:purge": Role.MEMBER,
    "topics:get_all": Role.READER,
    "topics:create": Role.MEMBER,
    "topics:get": Role.READER,
    "topics:delete": Role.MEMBER,
    "topics:update": Role.MEMBER,
    "topics:stats": Role.READER,
    "topics:purge": Role.MEMBER,
    "messages:get_all": Role.READER,
    "messages:create": Role.MEMBER,
    "messages:get": Role.READER,
    "messages:delete": Role.MEMBER,
    "messages:delete_all": Role.MEMBER,
    "claims:create": Role.MEMBER,
    "claims:get": Role.READER,
    "claims:update": Role.MEMBER,
    "claims:delete": Role.MEMBER,
    "subscription:get_all": Role.READER,
    "subscription:create": Role.MEMBER,
    "subscription:get": Role.READER,
    "subscription:delete": Role.MEMBER,
    "subscription:update": Role.MEMBER,
    "subscription:confirm": Role.MEMBER,
    "pools:get_all": Role.ADMIN,
    "pools:create": Role.ADMIN,
    "pools:get": Role.ADMIN,
    "pools:delete": Role.ADMIN,
    "pools:update": Role.ADMIN,
    "flavors:get_all": Role.READER,
    "flavors:get": Role.READER,
    "flavors:create": Role.ADMIN,
    "flavors:update": Role.ADMIN,
    "flavors:delete": Role.ADMIN,
    "ping:get": Role.READER,
    "health:get": Role.ADMIN,
}


class AccessPolicy:
    """The rules with an operator's changes."""

    def __init__(self, changes: Mapping[str, Role] | None = None) -> None:
        self._needed = {**RULES, **(changes or {})}

    def check(self, rule: str, caller: Caller) -> None:
        """Raise Denied unless the caller's role is the one the rule asks for, or higher."""
        needed = self._needed[rule]
        if caller.role < needed:
            raise Denied(f"This needs the role {needed.name.lower()}.")
