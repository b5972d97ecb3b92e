"""What this machine has to make faults with: a library that is loaded into processes, and files that steer it.

It is small, and made here: libfaketime, which is known for clocks, also takes over sleeping, and version
0.9.10 lets every `time.sleep` of Python 3.11 fail where the monotonic clock is to be left alone.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The library, if there is one; see `shim.c`."""

    folder: Path  # where library and files are
    shim: Path | None = None
    absent: dict[str, str] = field(default_factory=dict)  # kind of fault: why there is none

    def environ(self, *, disk: Path | None = None, clock: bool = False) -> dict[str, str]:
        """Return the environment of a process whose files below a folder can fail, or whose clock can jump."""
        if self.shim is None or not (disk or clock):
            return {}
        found = {"LD_PRELOAD": str(self.shim)}
        if disk is not None:
            found |= {"FAULT_FOLDER": str(disk), "FAULT_SWITCH": str(self.folder / "disk")}
        if clock:
            found["FAULT_CLOCK"] = str(self.folder / "clock")
        return found

    def switch_disk(self, which: Literal["full", "sync"], *, on: bool) -> None:
        """Let writes ("full") or syncs ("sync") fail, or not."""
        path = self.folder / f"disk.{which}"
        if on:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def set_clocks(self, seconds: int) -> None:
        """Let the clocks be so many seconds off, within a twentieth of a second."""
        new = self.folder / "clock.new"
        new.write_text(f"{seconds}\n")
        new.replace(self.folder / "clock")


def find_tools(folder: Path) -> Tools:
    """Make what can be made, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    gcc = shutil.which("gcc")
    if gcc is None:
        why = "there is no gcc to make the library with"
        return Tools(folder=folder, absent={"disks": why, "clocks": why})
    made, source = folder / "shim.so", Path(__file__).with_name("shim.c")
    subprocess.run([gcc, "-Wall", "-shared", "-fPIC", "-O2", "-o", made, source, "-ldl"], check=True)
    return Tools(folder=folder, shim=made)
