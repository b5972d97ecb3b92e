"""How many files a process may have open; connections are files too."""

from __future__ import annotations

import resource

import structlog

_OTHERS = 256  # files that a process has open besides its connections to clients or subscribers

_log = structlog.get_logger()


def allow_files(connections: int, setting: str) -> None:
    """Let this process open as many files as the system lets it, and say so if a setting asks for more connections.

    A soft limit of 1024, which is usual, is less than they need; beyond it they fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < connections + _OTHERS:
        _log.warning("too few files may be open", setting=setting, files=hard, wanted=connections + _OTHERS)
