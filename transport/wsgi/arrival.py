"""A request on its way in: whether all of it is there, so that no thread waits for the rest.

What is decided here is only when a thread begins. What the request says, and whether it is
one at all, the parser decides: whatever cannot become a request is there as it is.
"""

from __future__ import annotations

import re

_FRAMING = re.compile(
    rb"\r\n(?:content-length:[ \t]*([0-9]{1,18})[ \t]*\r\n|(transfer-encoding:[ \t]*chunked))", re.IGNORECASE
)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_FIRST_LINE = re.compile(rb"(?:\r\n)?[^\r\n]* HTTP/1\.1\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")

_HEAD_END = b"\r\n\r\n"
_LONGEST_LINE = 8190  # bytes; a longer one is refused
_MOST_HEAD = 101 * 8192  # bytes


def is_whole(data: bytes) -> bool:
    """Tell whether all of a request is there; false where only a closer look tells."""
    end = data.find(_HEAD_END)
    if end < 0:
        return False
    framing = _FRAMING.search(data, 0, end + 2)
    return framing is None or (framing[1] is not None and len(data) - end - 4 >= int(framing[1]))


class Arrival:
    """What has come of a request so far. `most` is how many bytes of a body are worth waiting for."""

    __slots__ = ("_body", "_chunk", "_most", "_need", "data", "whole")

    def __init__(self, data: bytes, most: int) -> None:
        self.data = bytearray(data)
        self.whole = False  # or no request, whatever may follow
        self._most = most
        self._body = 0  # where the body begins; 0 until the head is there
        self._need = 0  # bytes at which a body of known length ends; 0 for one in chunks
        self._chunk = 0  # where the next chunk begins
        self._look(0)

    def add(self, piece: bytes) -> None:
        """Take what came next."""
        before = len(self.data)
        self.data += piece
        self._look(before)

    def end(self) -> None:
        """Note that nothing more will come."""
        self.whole = True

    @property
    def in_body(self) -> bool:
        """Whether the head is there."""
        return self._body > 0

    def take_expectation(self) -> bool:
        """Whether the client waits to be told to go on with the body; it is taken out of the head."""
        if not self._body or self.whole or not _FIRST_LINE.match(self.data):
            return False
        found = _EXPECTS.search(self.data, 0, self._body)
        if found is None:
            return False
        gone = found.end() - found.start()
        del self.data[found.start() : found.end()]
        self._body -= gone
        self._need -= gone if self._need else 0
        self._chunk -= gone
        return True

    def _look(self, before: int) -> None:
        if not self._body and not self._look_for_head(before):
            return
        if self._need:
            self.whole = len(self.data) >= self._need
        else:
            self._look_for_chunks()

    def _look_for_head(self, before: int) -> bool:
        """Look for the end of the head; tells whether there may be a body."""
        data = self.data
        end = data.find(_HEAD_END, max(0, before - 3))
        if end < 0:
            line = len(data) - data.rfind(b"\n") - 1
            hopeless = line > _LONGEST_LINE + 1 or len(data) > _MOST_HEAD
            self.whole = hopeless or _BARE_LF.search(data, before) is not None
            return False
        self._body = self._chunk = end + len(_HEAD_END)
        framing = _FRAMING.search(data, 0, end + 2)
        if framing is None:
            self.whole = True
        elif framing[2] is None:
            length = int(framing[1])
            self._need = self._body + length
            # Of a body that is too large nobody will read anything.
            self.whole = length > self._most
        return not self.whole

    def _look_for_chunks(self) -> None:
        data = self.data
        while True:
            size = _SIZE.match(data, self._chunk)
            if size is None:
                line = data.find(b"\n", self._chunk)
                self.whole = line >= 0 or len(data) - self._chunk > _LONGEST_LINE
                break
            length = int(size[1], 16)
            if length == 0:
                # The trailers, if there are any, end like a head.
                self.whole = data.find(_HEAD_END, size.end() - 2) >= 0
                break
            if size.end() + length + 2 > len(data):
                break
            self._chunk = size.end() + length + 2
        self.whole = self.whole or len(data) - self._body > 2 * self._most + _MOST_HEAD
