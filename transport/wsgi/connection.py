"""A client of a REST worker, as its threads see it: they never wait for it, neither to send nor to read."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.unreader import Unreader  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn  # type: ignore[import-untyped]

from transport.wsgi.arrival import Arrival, is_whole

_MOSTLY = 16384  # bytes that a request mostly has less of
_PIECE = 65536  # bytes that are read at once of a larger one
_LINGER = 5000  # µs that a thread stays with a client that has its answer; the system makes 8 to 12 ms of it
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


_TIMEVAL = struct.Struct("@ll")


class PatientSocket(socket.socket):
    """Sends an answer as one piece, and keeps what a client does not read at once, for somebody else to send."""

    unsent: bytearray | None = None

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - of a socket
        super().__init__(*args, **named)
        # So that a read that waits at all needs no other call in front of it, and ends.
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(0, _LINGER))
        self._pieces: list[
            bytes
        ] = []  # of an answer: gunicorn writes its head and its body, one after the other

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: who reads or writes says whether to wait; gunicorn changes its mind in each request."""

    def sendall(self, data: Any, _flags: int = 0, /) -> None:  # noqa: ANN401 - whatever has bytes
        """Take a piece of an answer."""
        self._pieces.append(data)

    def flush(self) -> None:
        """Send what can be sent now, and keep the rest. Raises OSError."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self.unsent is None:
            try:
                sent = self.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            self.unsent = bytearray()
            data = data[sent:]
        self.unsent += data

    def send_on(self) -> bool:
        """Send more of what is left; tells whether that was all of it."""
        if self.unsent is not None:
            try:
                sent = self.send(self.unsent, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            del self.unsent[:sent]
            if self.unsent:
                return False
            self.unsent = None
        return True


class _Request(Request):  # type: ignore[misc]
    """A request as gunicorn reads it, from a peer that is believed nothing beyond it, whoever it is."""

    def _peer_is_trusted_proxy(self) -> bool:
        return False  # which gunicorn finds out for each request, by parsing addresses


class _Received(Unreader):  # type: ignore[misc]
    """What a client has sent: a request that wants more than that is none."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        # Not called `sock`: gunicorn sets time-outs at one that is, for reads that never wait.
        self._socket = sock

    def chunk(self, _size_hint: int | None = None) -> bytes:
        """Return more, if there is more; raises OSError where there is not."""
        try:
            return self._socket.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            raise OSError(errno.ENOTCONN, "The request ends in the middle.") from error


class Connection(TConn):  # type: ignore[misc]
    """A client. Its requests come to a thread when all of them is there."""

    sock: PatientSocket

    def __init__(self, cfg: Any, sock: PatientSocket, client: Any, server: Any) -> None:  # noqa: ANN401
        super().__init__(cfg, sock, client, server)
        self.data_ready = True
        self.arrival: Arrival | None = None  # of a request that does not come at once
        self.goes_on = False  # whether there may be another request, when all is sent

    def init(self) -> None:
        """Begin to speak HTTP."""
        if not self.initialized:
            super().init()
            self.parser.unreader = _Received(self.sock)
            self.parser.mesg_class = _Request

    @property
    def held(self) -> int:
        """How many bytes are kept for it."""
        return len(self.arrival.data if self.arrival is not None else self.sock.unsent or b"")

    @property
    def read_ahead(self) -> bool:
        """Whether something of another request was read already."""
        return bool(self.parser.unreader.buf.getvalue())

    def follows(self) -> bool:
        """Tell whether the client says something more within a moment, if only that it goes. Raises OSError."""
        if self.read_ahead:
            return True
        try:
            piece = self.sock.recv(_MOSTLY)
        except BlockingIOError:
            return False
        self.parser.unreader.unread(piece)
        return True

    def receive(self, most: int) -> bool:
        """Read what there is of the next request; tells whether it is all there, or hopeless.

        `most` is how many bytes of a body are worth waiting for. Raises OSError.
        """
        self.init()
        if self.arrival is None:
            data: bytes = self.parser.unreader.take_buffered()
            there = is_whole(data)
            if not there:
                piece = self._read(_MOSTLY)
                data += piece or b""
                there = piece == b"" or is_whole(data)
            if there:
                self.parser.unreader.unread(data)
                return True
            self.arrival = Arrival(data, most)
            self.receive_more()
        if not self.arrival.whole:
            return False
        self.parser.unreader.unread(bytes(self.arrival.data))
        self.arrival = None
        return True

    def receive_more(self) -> None:
        """Read more of a request that did not come at once. Raises OSError."""
        arrival = self.arrival
        while arrival is not None and not arrival.whole:
            if arrival.take_expectation():
                self.sock.sendall(_CONTINUE)
                self.sock.flush()
            piece = self._read()
            if piece is None:
                return
            if piece:
                arrival.add(piece)
            else:
                arrival.end()

    def _read(self, size: int = _PIECE) -> bytes | None:
        """Return what there is; None for nothing yet, b"" for nothing any more."""
        try:
            return self.sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
