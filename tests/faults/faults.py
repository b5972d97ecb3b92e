"""The faults that one machine can make."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from tests.faults.proxy import Mode
from tests.faults.world import COMMANDS, World

STORE = "store"  # stands for the server of the store, or for the disk, in what a fault touches


@dataclass(frozen=True)
class Kill:
    """SIGKILL of all processes of some nodes, which stay away for a while."""

    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        return "kill everything" if len(self.nodes) > 1 else f"kill {self.nodes[0]}"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset(self.nodes)

    def start(self, world: World) -> None:
        world.hold(*self.nodes)

    def heal(self, world: World) -> None:
        world.release(*self.nodes)


@dataclass(frozen=True)
class KillWorker:
    """SIGKILL of the process that answers requests, again and again a new one."""

    node: str

    @property
    def name(self) -> str:
        return f"kill a worker of {self.node}"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((self.node,))

    def start(self, world: World) -> None:
        world.nodes[self.node].kill_worker()

    def heal(self, world: World) -> None:
        world.nodes[self.node].kill_worker()


@dataclass(frozen=True)
class Pause:
    """SIGSTOP of all processes of some nodes, often for longer than a lease."""

    nodes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"pause {' and '.join(self.nodes)}"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset(self.nodes)

    def start(self, world: World) -> None:
        for name in self.nodes:
            world.nodes[name].suspend()

    def heal(self, world: World) -> None:
        for name in self.nodes:
            world.nodes[name].resume()


@dataclass(frozen=True)
class Front:
    """A disturbed network between clients and a node."""

    node: str
    mode: Mode

    @property
    def name(self) -> str:
        return f"{self.mode} clients from {self.node}"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((f"front of {self.node}",))

    def start(self, world: World) -> None:
        front = world.nodes[self.node].front
        assert front is not None
        front.disturb(self.mode)

    def heal(self, world: World) -> None:
        front = world.nodes[self.node].front
        assert front is not None
        front.forward()


@dataclass(frozen=True)
class Link:
    """A disturbed network between some nodes and the server of the store."""

    nodes: tuple[str, ...]
    mode: Mode

    @property
    def name(self) -> str:
        return f"{self.mode} {self.nodes[0] if len(self.nodes) == 1 else 'everything'} from the store"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset(f"link of {node}" for node in self.nodes)

    def start(self, world: World) -> None:
        for name in self.nodes:
            back = world.nodes[name].back
            assert back is not None
            back.disturb(self.mode)

    def heal(self, world: World) -> None:
        for name in self.nodes:
            back = world.nodes[name].back
            assert back is not None
            back.forward()


@dataclass(frozen=True)
class StopStore:
    """SIGKILL or SIGSTOP of the server of the store."""

    kill: bool

    @property
    def name(self) -> str:
        return f"{'kill' if self.kill else 'pause'} the store"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((STORE,))

    def start(self, world: World) -> None:
        if self.kill:
            world.hold_server()
        else:
            world.process_of_store().pause()

    def heal(self, world: World) -> None:
        if self.kill:
            world.release_server()
        else:
            world.process_of_store().resume()


@dataclass(frozen=True)
class RestartStore:
    """A polite end of the server of the store, which the supervisor starts again."""

    name: str = "restart the store"
    touches: frozenset[str] = frozenset((STORE,))

    def start(self, world: World) -> None:
        process = world.process_of_store().process
        if process is not None:
            process.terminate()

    def heal(self, world: World) -> None:
        """Do nothing: it is started again as soon as it has ended."""


@dataclass(frozen=True)
class DiskFails:
    """No space, or a sync that fails, for the files of the store."""

    which: Literal["full", "sync"]

    @property
    def name(self) -> str:
        return "disk full" if self.which == "full" else "fsync fails"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((STORE,))

    def start(self, world: World) -> None:
        world.tools.switch_disk(self.which, on=True)

    def heal(self, world: World) -> None:
        world.tools.switch_disk(self.which, on=False)


@dataclass(frozen=True)
class ClockJump:
    """Clocks of nodes that are off for a while, and jump back."""

    nodes: tuple[str, ...]
    seconds: int

    @property
    def name(self) -> str:
        return f"clocks off by {self.seconds:+} s"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset(f"clock of {node}" for node in self.nodes)

    def start(self, world: World) -> None:
        world.tools.set_clocks(self.seconds)

    def heal(self, world: World) -> None:
        world.tools.set_clocks(0)


@dataclass(frozen=True)
class TornLog:
    """Everything is killed, and behind the end of SQLite's log lies what was never synced: torn, and with bits flipped."""

    name: str = "kill everything and tear the log"

    @property
    def touches(self) -> frozenset[str]:
        return frozenset((STORE, *COMMANDS))

    def start(self, world: World) -> None:
        world.hold(*world.nodes)
        log = world.database.with_name(world.database.name + "-wal")
        if log.exists() and (data := log.read_bytes()):
            end, frame = end_of_log(data)
            chance = random.Random(end)
            last = bytearray(data[end - frame : end])
            last[chance.randrange(frame)] ^= 1 << chance.randrange(8)
            with log.open("r+b") as file:
                file.seek(end)
                file.write(last + last[: chance.randrange(frame)] + chance.randbytes(2 * frame))

    def heal(self, world: World) -> None:
        world.release(*world.nodes)


def end_of_log(data: bytes) -> tuple[int, int]:
    """Return where the frames of a write-ahead log end that belong to its header, and the size of one.

    Behind them can be frames of before the log began anew. See https://sqlite.org/fileformat2.html#walformat.
    """
    frame = 24 + int.from_bytes(data[8:12])
    salts = data[16:24]
    end = 32
    while data[end + 8 : end + 16] == salts and end + frame <= len(data):
        end += frame
    return end, frame
