"""A request over the websocket as the actions see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec

from queues.models import Caller
from transport.service import Service
from transport.websocket.frames import Frame, FrameRefused

A = TypeVar("A")

NOT_VALID = "Schema validation failed."


class KnownHeaders(
    msgspec.Struct,
    rename={"agent": "User-Agent", "date": "Date", "accept": "Accept", "token": "X-Auth-Token"},
):
    """Headers that are text, if they are there."""

    agent: str | msgspec.UnsetType = msgspec.UNSET
    date: str | msgspec.UnsetType = msgspec.UNSET
    accept: str | msgspec.UnsetType = msgspec.UNSET
    token: str | msgspec.UnsetType = msgspec.UNSET


class Headers(KnownHeaders, kw_only=True, rename={"client_id": "Client-ID", "project": "X-Project-ID"}):
    """What a request must say of its sender; the rest is checked to be text where it is known."""

    client_id: str
    project: str


@dataclass(frozen=True, slots=True)
class SocketRequest:
    """One request, by a caller who is known."""

    frame: Frame
    service: Service
    caller: Caller


def arguments(frame: Frame, kind: type[A]) -> A:
    """Return the body of a frame as these arguments; raises FrameRefused."""
    try:
        found: A = _decoder(kind).decode(frame.body)  # type: ignore[arg-type]
    except msgspec.DecodeError as error:
        raise FrameRefused(NOT_VALID, frame) from error
    return found


def checked_headers(frame: Frame, kind: type[A]) -> A:
    """Return the headers of a frame; raises FrameRefused where there is something wrong with them."""
    try:
        found: A = msgspec.convert(frame.headers, kind)
    except msgspec.ValidationError as error:
        raise FrameRefused(NOT_VALID, frame) from error
    return found


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
