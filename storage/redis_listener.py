"""How a process learns that something is new on Redis: one connection that listens, for all its watches.

The scripts publish to the channel of a queue. One thread subscribes to the channels of the queues
that are watched, and wakes whoever watches. Nobody else touches the connection, which redis-py lets
no two threads use: others leave a note and ring a bell, which the thread waits for beside the connection.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis-py's, which is no OSError
    RedisError,
    TimeoutError,  # noqa: A004 - redis-py's, which is no OSError
)

from queues.models import Address
from storage.redis_keys import channel
from storage.redis_link import RedisLink
from storage.wakeups import Wake, Wakeups

_CHECK = 5.0  # seconds between two looks at whether the connection is still a good one
_LINGER = 30.0  # seconds that the thread goes on when nothing is watched any more
_SHORTEST, _LONGEST = 0.05, 3.0  # seconds until it connects again, at first and in the end
_PARTING = 1.0  # seconds that closing waits for the thread
_BATCH = 1000  # messages that are read before anything else is looked at


class RedisListener:
    """Keeps the watches on one store, and the thread that listens, which is there while it is needed."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._wakeups = Wakeups(partial(self._note, True), partial(self._note, False))
        self._lock = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._bell: socket.socket | None = None  # rings in the thread
        self._notes: deque[tuple[bool, Address]] = deque()  # whether a queue is watched now, in order
        self._confirmed: set[Address] = set()  # whose watch is in force
        # The thread's own.
        self._wanted: dict[bytes, Address] = {}  # by channel
        self._needed = 0.0  # when something was watched last, by the monotonic clock

    def watch(self, address: Address, wake: Wake) -> Callable[[], None]:
        """Call `wake` whenever there may be something new in the queue; return what ends that."""
        end = self._wakeups.watch(address, wake)
        if address in self._confirmed:  # else the thread will wake it
            wake()
        return end

    def close(self) -> None:
        """End the thread; whoever watches is woken, for nothing will be told any more."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PARTING)

    def _note(self, watched: bool, address: Address) -> None:
        """Leave a note for the thread, which is started if need be."""
        with self._lock:
            if self._closed:
                return
            self._notes.append((watched, address))
            if self._thread is not None and self._thread.is_alive():
                self._ring()
            elif watched:
                # Where there is no socket or thread to be had the next watch tries again.
                with suppress(OSError, RuntimeError):
                    self._start()

    def _start(self) -> None:
        self._bell, ear = socket.socketpair()
        self._bell.setblocking(False)
        ear.setblocking(False)
        self._thread = threading.Thread(target=self._run, args=(ear,), name="redis-listener", daemon=True)
        self._thread.start()

    def _ring(self) -> None:
        if self._bell is not None:
            with suppress(OSError):  # full: it is ringing already
                self._bell.send(b"!")

    def _run(self, bell: socket.socket) -> None:
        """Listen until the store is closed, or nothing has been watched for a while."""
        pause = 0.0
        with bell:
            while not self._over():
                self._confirmed.clear()
                begun = time.monotonic()
                with suppress(RedisError, OSError), _listening(self._link) as ear:
                    self._listen(ear, bell)
                lived = time.monotonic() - begun
                pause = 0.0 if lived > _LONGEST else min(_LONGEST, max(_SHORTEST, 2 * pause))
                self._rest(bell, pause)
        if self._closed:
            self._wakeups.wake_all()

    def _over(self) -> bool:
        """Tell whether the thread may end; if so, the next watch starts another one."""
        with self._lock:
            if self._thread is threading.current_thread():
                idle = not self._wanted and not self._notes and time.monotonic() - self._needed > _LINGER
                if self._closed or idle:
                    self._thread = None
                    if self._bell is not None:
                        self._bell.close()
                    self._bell = None
            return self._thread is not threading.current_thread()

    def _rest(self, bell: socket.socket, pause: float) -> None:
        """Wait before the next attempt."""
        until = time.monotonic() + pause
        while not self._over() and (left := until - time.monotonic()) > 0:
            _wait(left, bell)
            self._changes()

    def _listen(self, ear: _Ear, bell: socket.socket) -> None:
        """Wake whoever is to be woken, until the thread may end. Raises when the connection is no good any more."""
        self._changes()
        ear.send("SUBSCRIBE", self._wanted)
        check = time.monotonic() + _CHECK
        while not self._over():
            if not ear.has_more():
                _wait(check - time.monotonic(), bell, ear)
            joined, left = self._changes()
            ear.send("UNSUBSCRIBE", left)
            ear.send("SUBSCRIBE", joined)
            self._wake(ear.heard())
            if time.monotonic() >= check:
                ear.check()
                if not self._link.hears(ear.connection):
                    raise ConnectionError("this server does not hear what others tell any more")
                check = time.monotonic() + _CHECK

    def _changes(self) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Read the notes; return the channels that are wanted now and were not, and the other way round."""
        latest: dict[Address, bool] = {}
        while self._notes:
            watched, address = self._notes.popleft()
            latest[address] = watched
        joined, left = [], []
        for address, watched in latest.items():
            name = channel(self._link.prefix, address, self._link.database).encode()
            if watched and name not in self._wanted:
                self._wanted[name] = address
                joined.append(name)
            elif not watched and name in self._wanted:
                del self._wanted[name]
                self._confirmed.discard(address)
                left.append(name)
        if self._wanted or left:
            self._needed = time.monotonic()
        return joined, left

    def _wake(self, heard: Sequence[tuple[bytes, bytes]]) -> None:
        """Wake those whose channels were heard of, once each."""
        fresh: dict[Address, None] = {}
        for kind, name in heard:
            address = self._wanted.get(name)
            if address is not None and kind in (b"message", b"subscribe"):
                fresh[address] = None
                if kind == b"subscribe":
                    self._confirmed.add(address)
        for address in fresh:
            self._wakeups.wake(address)


class _Ear:
    """A connection that listens."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - redis-py's, most of whose methods are untyped
        self.connection = connection
        self._asked = False  # whether the server owes a sign of life

    def fileno(self) -> int:
        """Return the descriptor to wait for; redis-py itself has no name for it."""
        descriptor: int = self.connection._sock.fileno()
        return descriptor

    def send(self, command: str, channels: Sequence[bytes] | dict[bytes, Address]) -> None:
        """Send a command for channels, if there are any."""
        if channels:
            self.connection.send_command(command, *channels, check_health=False)

    def check(self) -> None:
        """Ask for a sign of life. Raises ConnectionError if there was none since this was done last."""
        if self._asked:
            raise ConnectionError("the server does not answer any more")
        self._asked = True
        self.connection.send_command("PING", check_health=False)

    def has_more(self) -> bool:
        """Tell whether there is something to read, of which some may have left the socket already."""
        return bool(self.connection.can_read(0))

    def heard(self) -> list[tuple[bytes, bytes]]:
        """Return what kind of thing was said, at which channel."""
        found: list[tuple[bytes, bytes]] = []
        with suppress(TimeoutError):  # a part of it is still on its way
            while len(found) < _BATCH and self.has_more():
                said = self.connection.read_response(disconnect_on_error=False, push_request=True)
                self._asked = False
                if isinstance(said, list) and len(said) > 1:
                    found.append((said[0], said[1]))
        return found


@contextmanager
def _listening(link: RedisLink) -> Iterator[_Ear]:
    connection: Any = link.listen()
    try:
        yield _Ear(connection)
    finally:
        connection.disconnect()


def _wait(seconds: float, bell: socket.socket, *others: _Ear) -> None:
    """Wait until the bell rings or something is to be read; the bell is silent then."""
    poll = select.poll()  # takes any descriptor, as select does not
    poll.register(bell, select.POLLIN)
    for ear in others:
        poll.register(ear, select.POLLIN)
    poll.poll(max(0.0, seconds) * 1000)
    with suppress(BlockingIOError):
        while bell.recv(4096):
            pass
