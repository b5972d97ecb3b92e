"""Reads the write-ahead log of a SQLite file as it stands on disk, before SQLite takes it over.

After a crash SQLite takes from the log what is whole, up to the first frame whose checksum does not fit, and
forgets the rest. Mostly that is right: the rest is the one transaction that was being written. But a frame may be
wrong because the disk changed it, and then what is forgotten was acknowledged. The two differ in what follows: each
commit is on disk before the next transaction begins, so behind a torn transaction no other one can be whole.

Format: a header of 32 bytes (magic, version, page size, number, two salts, checksum), then frames of 24 bytes (page,
size of the database in pages if it commits or else 0, the salts, checksum) and a page each. Integers are big-endian. Each
checksum goes on from the one before it; frames with other salts are left over from an earlier use of the log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682  # and one more where checksums are made of big-endian words
_VERSION: Final = 3_007_000
_SIZES: Final = {2**power for power in range(9, 17)}

Checksum: TypeAlias = tuple[int, int]


@dataclass(kw_only=True, slots=True)
class Log:
    """What a write-ahead log holds."""

    salts: tuple[int, int] = (0, 0)  # by which one use of the log differs from the next
    page_size: int = 0  # bytes; 0 if that cannot be read
    size: int = 0  # pages of the database after the last whole transaction; 0 if there is none
    pages: set[int] = field(default_factory=set)  # those that whole transactions wrote
    whole: int = 0  # frames that SQLite takes
    lost: int = 0  # transactions behind them that were whole once, one that may never have been left out


def read_log(path: Path, *, page_size: int = 0) -> Log:
    """Read a log; one that does not exist is empty. Takes about a second for 50 MB. Raises OSError.

    `page_size` (bytes) is that of the file, for a log whose header is wrong.
    """
    try:
        file = path.open("rb")  # which takes away no lock: SQLite has none on this file
    except FileNotFoundError:
        return Log()
    with file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size:
            return Log()
        magic, version, size, _, *salts, first, second = _HEADER.unpack(head)
        words = ">" if magic & 1 else "<"
        good = (magic & ~1, version) == (_MAGIC, _VERSION) and size in _SIZES
        good = good and _checksum(head[:24], (0, 0), words) == (first, second)
        log = Log(salts=(salts[0], salts[1]), page_size=size if good else page_size)
        if log.page_size:
            frames = iter(lambda: file.read(_FRAME.size + log.page_size), b"")
            _read_frames(log, frames, (first, second) if good else None, words)
        return log


def _read_frames(log: Log, frames: Iterator[bytes], seed: Checksum | None, words: str) -> None:
    """Go through the frames; without a seed the header is wrong, and SQLite takes none of them."""
    pending: set[int] = set()  # pages of a transaction that has not come to its end
    taken = seed is not None
    before = seed
    commits = 0  # in a row, behind what SQLite takes
    salts = log.salts if taken else None
    for count, frame in enumerate(frames, start=1):
        if len(frame) < _FRAME.size + log.page_size:
            break
        page, size, one, two, *stored = _FRAME.unpack_from(frame)
        salts = salts or (one, two)
        ours = (one, two) == salts
        fits = ours and before is not None and _fits(frame, before, (stored[0], stored[1]), words)
        taken = taken and fits
        if taken:
            pending.add(page)
            if size:
                log.size, log.whole = size, count
                log.pages |= pending
                pending = set()
        else:
            commits = (commits if fits else 0) + (ours and 0 < page <= size)
            log.lost = max(log.lost, commits - 1)
        before = (stored[0], stored[1])


def _fits(frame: bytes, before: Checksum, stored: Checksum, words: str) -> bool:
    found = _checksum(frame[:8], before, words)
    return _checksum(frame[_FRAME.size :], found, words) == stored


def _checksum(data: bytes, seed: Checksum, words: str) -> Checksum:
    first, second = seed
    numbers = struct.unpack(f"{words}{len(data) // 4}I", data)
    for even, odd in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
