"""A client that logs each request, and goes to another node when one does not answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from tests.acceptance.processes import CLIENT, GONE, Client, Reply
from tests.faults.history import History, Outcome, Pending

PATIENCE = 4.0  # seconds that a client waits for an answer


class Caller:
    """One client of one tenant, for one thread."""

    def __init__(self, name: str, tenant: str, ports: Sequence[int], history: History, seed: str) -> None:
        self.name = name
        self.tenant = tenant
        self.random = random.Random(f"{seed}/{tenant}/{name}")  # of decisions, which faults do not change
        self.history = history
        self._ports = list(ports)
        self._chance = random.Random(f"{seed}/{tenant}/{name}/ports")
        self._client: Client | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.__exit__()
            self._client = None

    def post(self, queue: str, values: Sequence[str], key: str | None = None, delay: int = 0) -> Outcome:
        """Post values, with an idempotency key if there is one, which nobody is to have for some seconds."""
        asked = {"values": list(values), "key": key, "delay": delay}
        document = {"messages": [{"body": value, "ttl": 86400, "delay": delay} for value in values]}
        headers = {} if key is None else {"Idempotency-Key": key}
        with self._operation("post", queue, **asked) as pending:
            reply = self._request(pending, "POST", f"{queue}/messages", document, headers)
            if reply is not None:
                pending.answered["ids"] = [_last(path) for path in reply.document()["resources"]]
        return pending.outcome

    def claim(self, queue: str, ttl: int, limit: int) -> tuple[str, list[dict[str, Any]]]:
        """Claim messages; return the claim's id and the messages."""
        with self._operation("claim", queue, ttl=ttl, limit=limit) as pending:
            reply = self._request(
                pending, "POST", f"{queue}/claims?limit={limit}", {"ttl": ttl, "grace": 3600}
            )
            if reply is None or reply.status == 204:
                pending.answered.update(claim="", ids=[], values=[])
                return "", []
            found = reply.messages()
            claim = _last(reply.headers["location"])
            pending.answered.update(
                claim=claim, ids=[each["id"] for each in found], values=[each["body"] for each in found]
            )
            return claim, found

    def delete(self, queue: str, claim: str, id_: str, value: str) -> Outcome:
        """Delete a message of a claim."""
        asked = {"claim": claim, "id": id_, "value": value}
        with self._operation("delete", queue, **asked) as pending:
            self._request(pending, "DELETE", f"{queue}/messages/{id_}?claim_id={claim}")
        return pending.outcome

    def release(self, queue: str, claim: str) -> Outcome:
        """Give a claim back."""
        with self._operation("release", queue, claim=claim) as pending:
            self._request(pending, "DELETE", f"{queue}/claims/{claim}")
        return pending.outcome

    def renew(self, queue: str, claim: str, ttl: int) -> Outcome:
        """Let a claim begin anew."""
        with self._operation("renew", queue, claim=claim, ttl=ttl) as pending:
            self._request(pending, "PATCH", f"{queue}/claims/{claim}", {"ttl": ttl, "grace": 3600})
        return pending.outcome

    def pop(self, queue: str, limit: int) -> list[dict[str, Any]]:
        """Take messages for good; return what came."""
        with self._operation("pop", queue, limit=limit) as pending:
            reply = self._request(pending, "DELETE", f"{queue}/messages?pop={limit}")
            if reply is None:
                return []
            found = reply.messages()
            pending.answered["ids"] = [each["id"] for each in found]
            pending.answered["values"] = [each["body"] for each in found]
            return found

    def purge(self, queue: str) -> Outcome:
        """Take everything away."""
        with self._operation("purge", queue) as pending:
            self._request(pending, "POST", f"{queue}/purge", {"resource_types": ["messages"]})
        return pending.outcome

    def page(self, queue: str, marker: str, limit: int) -> list[dict[str, Any]] | None:
        """Return the page of a listing behind a marker; None if it is not known."""
        path = f"{queue}/messages?limit={limit}&echo=true&include_claimed=true"
        with self._operation("list", queue, marker=marker, limit=limit) as pending:
            reply = self._request(pending, "GET", path + (f"&marker={marker}" if marker else ""))
            if reply is None:
                return None
            found = reply.messages()
            pending.answered["ids"] = [each["id"] for each in found]
            pending.answered["values"] = [each["body"] for each in found]
            return found

    def total(self, queue: str) -> int | None:
        """Return how many messages there are by the statistics; None if it is not known."""
        with self._operation("stats", queue) as pending:
            reply = self._request(pending, "GET", f"{queue}/stats")
            if reply is None:
                return None
            pending.answered.update(reply.document()["messages"])
            return int(pending.answered["total"])

    def ask(self, name: str, method: str, path: str, document: object = None) -> Any:
        """Make any other request about a queue; return the document of the answer, None if it is not known."""
        with self._operation(name, path.partition("/")[0]) as pending:
            reply = self._request(pending, method, path, document)
        return None if reply is None else reply.document() if reply.body else {}

    def _operation(self, name: str, queue: str, **asked: Any) -> AbstractContextManager[Pending]:
        return self.history.operation(self.name, name, self.tenant, queue, **asked)

    def _request(
        self,
        pending: Pending,
        method: str,
        path: str,
        document: object = None,
        headers: dict[str, str] | None = None,
    ) -> Reply | None:
        """Make a request, set its outcome, and return the answer if it was done."""
        if self._client is None:
            port = self._chance.choice(self._ports)
            self._client = Client(port, project=self.tenant, client_id=CLIENT, patience=PATIENCE)
        try:
            reply = self._client.request(method, f"/v2/queues/{path}", document, headers=headers)
        except GONE as error:
            self.close()
            pending.end("unknown", error=type(error).__name__)
            return None
        pending.end(_outcome(reply.status), status=reply.status)
        if pending.outcome == "unknown":
            self.close()
        return reply if pending.outcome == "ok" else None


def _outcome(status: int) -> Outcome:
    if status < 300:
        return "ok"
    return "fail" if status < 500 else "unknown"


def _last(path: str) -> str:
    return path.rpartition("/")[2]
