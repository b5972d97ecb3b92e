"""The two documents that say what there is: versions at `/`, JSON home at `/v2/`."""

from __future__ import annotations

from queues.models import JsonObject

VERSIONS: JsonObject = {
    "versions": [
        {
            "id": "2",
            "status": "CURRENT",
            "updated": "2014-9-24T04:06:47Z",
            "media-types": [
                {
                    "base": "application/json",
                    "type": "application/vnd.openstack.messaging-v2+json",
                }
            ],
            "links": [{"href": "/v2/", "rel": "self"}],
        }
    ]
}

_QUEUE = "/v2/queues/{queue_name}"


def home(*, admin: bool, pooling: bool) -> JsonObject:
    """Return the JSON home document, with the operator's resources if they are served."""
    resources = {
        "rel/queues": _entry(
            "/v2/queues{?marker,limit,detailed}",
            "GET",
            marker="marker",
            limit="queue_limit",
            detailed="detailed",
        ),
        "rel/queue": _entry(_QUEUE, "GET PUT DELETE PATCH", queue_name="queue_name"),
        "rel/queue_stats": _entry(f"{_QUEUE}/stats", "GET", queue_name="queue_name"),
        "rel/queue_share": _entry(f"{_QUEUE}/share", "POST", queue_name="queue_name"),
        "rel/queue_purge": _entry(f"{_QUEUE}/purge", "POST", queue_name="queue_name"),
        "rel/messages": _entry(
            f"{_QUEUE}/messages{{?marker,limit,echo,include_claimed}}",
            "GET",
            queue_name="queue_name",
            marker="marker",
            limit="messages_limit",
            echo="echo",
            include_claimed="include_claimed",
        ),
        "rel/post_messages": _entry(f"{_QUEUE}/messages", "POST", queue_name="queue_name"),
        "rel/messages_delete": _entry(
            f"{_QUEUE}/messages{{?ids,pop}}", "DELETE", queue_name="queue_name", ids="ids", pop="pop"
        ),
        "rel/message_delete": _entry(
            f"{_QUEUE}/messages/{{message_id}}{{?claim}}",
            "DELETE",
            queue_name="queue_name",
            message_id="message_id",
            claim="claim_id",
        ),
        "rel/message_get": _entry(
            f"{_QUEUE}/messages/{{message_id}}", "GET", queue_name="queue_name", message_id="message_id"
        ),
        "rel/claim": _claim("GET"),
        "rel/post_claim": _entry(
            f"{_QUEUE}/claims{{?limit}}", "POST", queue_name="queue_name", limit="claim_limit"
        ),
        "rel/patch_claim": _claim("PATCH"),
        "rel/delete_claim": _claim("DELETE"),
        "rel/subscriptions_get": _entry(
            f"{_QUEUE}/subscriptions{{?marker,limit}}",
            "GET",
            queue_name="queue_name",
            marker="marker",
            limit="subscription_limit",
        ),
        "rel/subscriptions_post": _entry(
            f"{_QUEUE}/subscriptions", "POST", queue_name="queue_name", limit="subscription_limit"
        ),
        "rel/subscription": _subscription("GET DELETE"),
        "rel/subscription_patch": _subscription("PATCH"),
        "rel/ping": _entry("/v2/ping", "GET"),
    }
    if admin:
        resources["rel/health"] = {"href": "/v2/health", "hints": _hints("GET")}
    if admin and pooling:
        resources |= {**_operators("pool"), **_operators("flavor")}
    return {"resources": resources}


def _claim(method: str) -> JsonObject:
    return _entry(f"{_QUEUE}/claims/{{claim_id}}", method, queue_name="queue_name", claim_id="claim_id")


def _subscription(methods: str) -> JsonObject:
    path = f"{_QUEUE}/subscriptions/{{subscriptions_id}}"
    return _entry(path, methods, queue_name="queue_name", subscriptions_id="subscriptions_id")


def _operators(noun: str) -> JsonObject:
    """Return the entries of pools or of flavors."""
    listing = _entry(
        f"/v2/{noun}s{{?detailed,limit,marker}}",
        "GET",
        detailed="detailed",
        limit=f"{noun}_limit",
        marker="marker",
    )
    methods, name = "GET PUT PATCH DELETE", {f"{noun}_name": f"{noun}_name"}
    item = _entry(f"/v2/{noun}s/{{{noun}_name}}", methods, **name)
    return {f"rel/{noun}s": listing, f"rel/{noun}": item}


def _entry(template: str, methods: str, **variables: str) -> JsonObject:
    entry: JsonObject = {"href-template": template}
    if variables:
        entry["href-vars"] = {name: f"param/{meaning}" for name, meaning in variables.items()}
    entry["hints"] = _hints(methods)
    return entry


def _hints(methods: str) -> JsonObject:
    hints: JsonObject = {"allow": methods.split(), "formats": {"application/json": {}}}
    if methods in ("POST", "PATCH"):
        hints["accept-post"] = ["application/json"]
    return hints
