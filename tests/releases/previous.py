"""The release before this one: from its tag, or, where a checkout has no tags, from the wheel that is kept."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

PACKAGES = ("queues", "storage", "transport", "notifiers")
RELEASES = Path(__file__).parent


def newest() -> Path:
    """Return the folder of the newest release that was recorded."""
    return max(
        (path.parent for path in RELEASES.glob("*/*.whl")),
        key=lambda folder: tuple(map(int, folder.name.split("."))),
    )


def unpack(folder: Path) -> Path:
    """Put the packages of the release before this one into a folder."""
    release = newest()
    if not _from_tag(f"v{release.name}", folder):
        from_wheel(release, folder)
    return folder


def from_wheel(release: Path, folder: Path) -> None:
    """Take them from the wheel."""
    (wheel,) = release.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def _from_tag(tag: str, folder: Path) -> bool:
    """Take them from the tag; false if there is none."""
    git = shutil.which("git")
    if git is None:
        return False
    command = (git, "-C", str(RELEASES.parents[1]), "archive", f"refs/tags/{tag}", *PACKAGES)
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        return False
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return True
