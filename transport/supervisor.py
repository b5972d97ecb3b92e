"""Runs the parts of Hermod on one machine, each in a process of its own.

A part that fails at its first start ends everything: something is wrong that the
operator must see. One that ends later is started again, after a pause that grows
as long as it does not come up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import structlog

from transport.signals import collect

if TYPE_CHECKING:
    from transport.settings import Loaded

#: What `hermod serve` runs; each is a command of its own.
PARTS = ("api", "websocket", "janitor", "notifier")

_LONGEST_PAUSE = 30.0  # seconds before a part is started again
_MARGIN = 5.0  # seconds that a part has to end when its requests have finished
_TICK = 0.5  # seconds between two looks at the parts, if nothing happens
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)

log = structlog.get_logger()


def command_of(part: str) -> Sequence[str]:
    """Return the command line that runs a part."""
    return [sys.executable, "-m", "transport", part]


def supervise(loaded: Loaded) -> int:
    """Run all parts with these settings; return the exit code."""
    settings = loaded.settings
    return Supervisor(
        # The one process that has a memory: store is its own janitor and notifier, and knows no websockets.
        parts=("api",) if settings.in_memory else PARTS,
        environ=loaded.environ(),
        grace=max(settings.api.graceful_timeout, settings.websocket.graceful_timeout) + _MARGIN,
    ).run()


@dataclass
class _Part:
    """A part and the process that runs it."""

    name: str  # its command
    process: subprocess.Popen[bytes] | None = None  # None while it is not to run
    since: float = 0.0  # monotonic seconds; when it was started, or else ended
    settled: bool = False  # whether it ever ran for a while
    pause: float = 0.0  # seconds before the next start


@dataclass
class Supervisor:
    """Starts the parts, keeps them running, and ends them together."""

    parts: Sequence[str]  # their commands, in the order of their start
    environ: Mapping[str, str]  # of the parts
    grace: float  # seconds that the parts have to end before they are killed
    command: Callable[[str], Sequence[str]] = command_of
    settled: float = 10.0  # seconds after which a part counts as started; gunicorn tries for 5 to bind
    pause: float = 1.0  # seconds before a part that ended is started again, the first time
    _parts: list[_Part] = field(default_factory=list)

    def run(self) -> int:
        """Run the parts until a signal says stop or one cannot start; return the exit code."""
        arrived = collect(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        self._parts = [_Part(name) for name in self.parts]
        for part in self._parts:
            self._start(part)
        while True:
            if _drain(arrived) & {signal.SIGTERM, signal.SIGINT}:
                log.info("stopping")
                self._stop(arrived)
                return 0
            for part in self._parts:
                code = self._watch(part)
                if code is not None:
                    log.error("a part cannot start", part=part.name, code=code)
                    self._stop(arrived)
                    return code

    def _start(self, part: _Part) -> None:
        part.process = subprocess.Popen(  # noqa: S603 - our own command
            self.command(part.name),
            env=dict(self.environ),
            # Ctrl-C reaches the supervisor alone, which then lets the parts finish what they are at.
            process_group=0,
            preexec_fn=_end_with_this_process(),  # noqa: PLW1509 - unsafe with threads: there is one
        )
        part.since = time.monotonic()

    def _watch(self, part: _Part) -> int | None:
        """See to a part; return its exit code if it could not start at all."""
        elapsed = time.monotonic() - part.since
        if part.process is None:
            if elapsed >= part.pause:
                part.pause = min(2 * part.pause, _LONGEST_PAUSE)
                self._start(part)
            return None
        code = part.process.poll()
        if elapsed >= self.settled:
            part.settled = True
            part.pause = self.pause
        if code is None:
            return None
        if not part.settled:
            return code if code >= 0 else 128 - code  # as a shell tells of a signal
        log.error("a part ended and is started again", part=part.name, code=code, seconds=part.pause)
        part.process, part.since = None, time.monotonic()
        return None

    def _stop(self, arrived: SimpleQueue[signal.Signals]) -> None:
        """Ask the parts to end; kill what is left after the grace, or at a second Ctrl-C."""
        running = [part.process for part in self._parts if part.process]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self.grace
        while any(process.poll() is None for process in running):
            if signal.SIGINT in _drain(arrived) or time.monotonic() >= deadline:
                for process in running:
                    process.kill()
                break
        for process in running:
            process.wait()


def _drain(arrived: SimpleQueue[signal.Signals]) -> set[signal.Signals]:
    """Wait for a signal, but not for long; return all that have arrived."""
    found: set[signal.Signals] = set()
    try:
        found.add(arrived.get(timeout=_TICK))
        while True:
            found.add(arrived.get_nowait())
    except Empty:
        return found


def _end_with_this_process() -> Callable[[], None] | None:
    """Return what makes a new process end when this one is gone, however it went; only Linux can."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    supervisor = os.getpid()

    def in_child() -> None:
        prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != supervisor:  # it went before the line above
            os._exit(1)

    return in_child
