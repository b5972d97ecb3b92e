"""Runs the bridge: notifications of OpenStack services come in from RabbitMQ."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from threading import Event as Flag
from typing import TYPE_CHECKING

import structlog

from queues.errors import HermodError
from queues.models import Address, Caller
from transport.operations.events import store_events
from transport.settings import SettingsError
from transport.wiring import event_bridge

if TYPE_CHECKING:
    from queues.events import Event
    from transport.service import Service

_CLIENT_ID = "0" * 32  # of what the bridge posts

_log = structlog.get_logger()


class BridgeMissing(HermodError):
    """The bridge needs a library that is not installed: pip install 'hermod[bridge]'."""

    code = "bridge-missing"


def run(service: Service) -> None:
    """Take notifications until SIGTERM or SIGINT.

    Raises SettingsError where the settings do not say from where and to where.
    """
    settings = service.settings.bridge
    if not settings.url.get_secret_value():
        raise SettingsError("The bridge needs bridge.url, bridge.exchanges and bridge.project.")
    address = Address(project=settings.project, queue=settings.queue)
    try:
        bridge = event_bridge(settings, partial(_store, service, address))
    except ModuleNotFoundError as error:
        raise BridgeMissing from error
    stop = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _log.info("taking notifications", exchanges=list(settings.exchanges))
    bridge.run(stop)


def _store(service: Service, address: Address, events: Sequence[Event]) -> None:
    caller = Caller(project=address.project, client_id=_CLIENT_ID)
    store_events(service, caller, address, events)
