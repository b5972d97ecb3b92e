"""What valid settings can still do wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from queues.errors import HermodError
from transport.settings.model import Settings


class SettingsError(HermodError):
    """The settings are wrong."""

    code = "settings"


def check_exposure(settings: Settings, key: str = "api.bind") -> None:
    """Refuse to serve without authentication where other machines could reach it.

    `key` is the setting that holds the address. Raises SettingsError.
    """
    if _is_open(settings, key) and not settings.allow_unauthenticated:
        bind = getattr(settings, key.partition(".")[0]).bind
        raise SettingsError(
            f"{key} {bind} can be reached from other machines, and auth_strategy none lets everybody in."
            ' Set auth_strategy = "token", or bind to 127.0.0.1, or set allow_unauthenticated = true'
            " if something in front of the service checks who is calling."
        )


def warnings(settings: Settings) -> Iterator[str]:
    """Yield what an operator should think about, one sentence each."""
    for key in ("api.bind", "websocket.bind"):
        if _is_open(settings, key):
            yield f"Whoever reaches {key} can use every project: auth_strategy is none."
    keystone = urlsplit(settings.keystone.auth_url)
    if keystone.scheme == "http" and not _is_loopback(keystone.hostname or ""):
        yield "Whoever is between the service and Keystone can read its password: keystone.auth_url is not https."


def _is_open(settings: Settings, key: str) -> bool:
    host = getattr(settings, key.partition(".")[0]).address()[0]
    return settings.auth_strategy == "none" and not _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
