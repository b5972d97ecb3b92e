"""Signals as a queue: a handler runs between any two instructions, so it does nothing but note the number."""

from __future__ import annotations

import signal
from queue import SimpleQueue


def collect(*numbers: signal.Signals) -> SimpleQueue[signal.Signals]:
    """Return the queue in which these signals arrive from now on, instead of what they did before."""
    arrived: SimpleQueue[signal.Signals] = SimpleQueue()  # its put may interrupt its get
    for number in numbers:
        signal.signal(number, lambda received, _: arrived.put(signal.Signals(received)))
    return arrived
