"""What a value must be; a message completes the sentence that begins with the setting's name."""

from __future__ import annotations

import base64
import binascii
import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import fields
from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from queues.errors import Invalid
from queues.limits import MIN_TTL, Limits, is_queue_name
from queues.mailto import is_address
from queues.models import Role
from queues.webhook_keys import read_private_key

if TYPE_CHECKING:
    from pydantic import SecretStr

MAX_SECONDS = 2**31 - 1  # some 68 years; also the bound of sizes
_MAX_PORT = 65535
_AES_KEY = 32  # bytes
_GUESSABLE = 16  # characters of a signing key that are too few

_BIND = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):([0-9]{1,5})").fullmatch
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:").match
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+").fullmatch
_KEYSTONE = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?").fullmatch
_AMQP = re.compile(r"amqps?://[^\s;]+").fullmatch
_INTEGER = re.compile(r"-?[0-9]{1,18}").fullmatch
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that looks most like this one."""
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


def bind(value: str) -> str:
    """Check an address to listen on."""
    found = _BIND(value)
    if not found or int(found[1]) > _MAX_PORT:
        raise ValueError("should be HOST:PORT or [IPv6]:PORT, such as 127.0.0.1:8888")
    return value


def store(value: str) -> str:
    """Check that a store is named by a URI; its driver checks the rest."""
    if not _SCHEME(value):
        raise ValueError("should be a URI, such as sqlite:///hermod-data/hermod.db or memory:")
    return value


def origin(value: str) -> str:
    """Check an origin in the sense of CORS."""
    if not _ORIGIN(value):
        raise ValueError("should be * or an origin such as https://console.example.org, without a path")
    return value


def base_url(value: str) -> str:
    """Check where something can be reached; empty for nowhere."""
    if value and (value == "*" or not _ORIGIN(value)):
        raise ValueError("should be a URL without a path, such as https://queues.example.org")
    return value


def lower(value: object) -> object:
    """Let a word be written in capitals too."""
    return value.lower() if isinstance(value, str) else value


def role(value: object) -> object:
    """Turn the name of a role into the role."""
    if isinstance(value, Role):
        return value
    if isinstance(value, str) and value.upper() in Role.__members__:
        return Role[value.upper()]
    raise ValueError("should be reader, member or admin")


def rules(value: dict[str, Role]) -> dict[str, Role]:
    """Check the names of access rules."""
    if not value:
        return value
    # Not at import: the table belongs to dispatch, and most commands never need it.
    from transport.access import RULES

    for name in value:
        if name not in RULES:
            raise ValueError(f"has no rule {name!r}; the nearest known one is {nearest(name, RULES)!r}")
    return value


def network(value: str) -> str:
    """Check a network in CIDR notation."""
    try:
        ip_network(value)
    except ValueError as error:
        raise ValueError(f"should be networks such as 10.20.0.0/16: {error}") from error
    return value


def signing_key(key: SecretStr) -> SecretStr:
    """Refuse a key that could be guessed."""
    if len(key.get_secret_value()) < _GUESSABLE:
        raise ValueError(f"should be keys of at least {_GUESSABLE} characters, so that nobody guesses them")
    return key


def private_key(key: SecretStr) -> SecretStr:
    """Check the form of a private key for webhooks."""
    try:
        read_private_key(key.get_secret_value())
    except Invalid as error:
        raise ValueError("should be whsk_ followed by base64 of the 32 bytes of an ed25519 key") from error
    return key


def mail_address(value: str) -> str:
    """Check a mail address."""
    if not is_address(value):
        raise ValueError("should be a plain mail address, such as hermod@example.org, without a name")
    return value


def broker(url: SecretStr) -> SecretStr:
    """Check the URLs of a broker; empty for none."""
    text = url.get_secret_value()
    if text and not all(_AMQP(each) for each in text.split(";")):
        raise ValueError(
            "should be amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://..., several by semicolons"
        )
    return url


def keystone(value: str) -> str:
    """Check where Keystone is; empty for none."""
    try:
        urlsplit(value).port  # noqa: B018 - it is looked at only now
        is_url = _KEYSTONE(value) is not None
    except ValueError:
        is_url = False
    if value and not is_url:
        raise ValueError(
            "should be a URL such as https://keystone.example.org:5000/v3, without a user or a query"
        )
    return value


def readable(value: str) -> str:
    """Check that a file can be read; empty for none."""
    if value and not os.access(value, os.R_OK):
        raise ValueError("should be a file that can be read")
    return value


def argument(value: object) -> object:
    """Turn what the environment can only write as text into the number or switch that it is."""
    if isinstance(value, str):
        return int(value) if _INTEGER(value) else {"true": True, "false": False}.get(value, value)
    if isinstance(value, int):
        return value
    raise ValueError("should be texts, integers or switches")


def queue_name(value: str) -> str:
    """Check the name of a queue."""
    if not is_queue_name(value):
        raise ValueError(
            "should be the name of a queue: 1 to 64 letters, digits, hyphens, underscores or full stops"
        )
    return value


def split_key(key: SecretStr) -> tuple[str, bytes]:
    """Return the id and the bytes of an encryption key; ValueError without a trace of it."""
    key_id, _, encoded = key.get_secret_value().partition(":")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        decoded = b""
    if not _KEY_ID(key_id) or len(decoded) != _AES_KEY:
        raise ValueError(
            f"should be id:base64 of {_AES_KEY} bytes, where the id is made of A-Z, a-z, 0-9, _, - and full stop"
        )
    return key_id, decoded


def encryption_key(key: SecretStr) -> SecretStr:
    """Check the form of an encryption key."""
    split_key(key)
    return key


def limits(value: Limits) -> Limits:
    """Refuse bounds that no request could keep, and defaults beyond their bounds."""
    for name in ("message_ttl", "message_delay", "claim_ttl", "claim_grace", "subscription_ttl"):
        low = 0 if name == "message_delay" else MIN_TTL
        high = getattr(value, f"max_{name}", MAX_SECONDS)
        if not low <= getattr(value, f"default_{name}") <= high <= MAX_SECONDS:
            raise ValueError(
                f"default_{name} should be from {low} to max_{name}, which should be at most {MAX_SECONDS}"
            )
    for field in fields(value):
        is_size = field.name.startswith("max_") and not hasattr(value, f"default_{field.name[4:]}")
        if is_size and not 1 <= getattr(value, field.name) <= MAX_SECONDS:
            raise ValueError(f"{field.name} should be from 1 to {MAX_SECONDS}")
    return value
