"""A way to a port that can be cut, slow, silent, or reset, as networks are."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Literal, get_args

from tests.acceptance.faults import Proxy

#: cut: nobody listens, connections end. blackhole: all is taken, nothing passes. delay: everything
#: is late. lag: requests are late, and answers are not. reset: connections are reset, again and again.
Mode = Literal["cut", "blackhole", "delay", "lag", "reset"]
MODES: tuple[Mode, ...] = get_args(Mode)

DELAY = 0.15  # seconds that each piece of a stream is late, in each direction
LAG = 1.0  # seconds that each piece of a request is late

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class FaultyProxy(Proxy):
    """A proxy in one of some modes, or in none."""

    def __init__(self, target: int) -> None:
        self._late = (0.0, 0.0)  # seconds: of requests, of answers
        self._resetting = False
        super().__init__(target)

    def __enter__(self) -> FaultyProxy:
        return self

    def disturb(self, mode: Mode) -> None:
        """Be in a mode until it is told to forward."""
        if mode == "cut":
            self.refuse()
        elif mode == "blackhole":
            self.hold()
        elif mode in ("delay", "lag"):
            self._late = (DELAY, DELAY) if mode == "delay" else (LAG, 0.0)
        else:
            self._resetting = True
            self._reset_all()

    def forward(self) -> None:
        """Be in no mode."""
        self._late = (0.0, 0.0)
        self._resetting = False
        super().forward()

    def _reset_all(self) -> None:
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD)  # wakes who reads, and sends nothing

    def _admit(self, source: socket.socket) -> None:
        super()._admit(source)
        requests, answers = self._late
        late = requests if source.getsockname()[1] == self.port else answers
        if late:
            time.sleep(late)
        if self._resetting:
            raise ConnectionResetError

    def _end(self, source: socket.socket, sink: socket.socket) -> None:
        if not self._resetting:
            super()._end(source, sink)
            return
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes the other direction
        self._forget(source, sink)
