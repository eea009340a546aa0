"""What keeps a shadow worker from taking anything of the router: priority, memory, and an end with its parent."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

NICENESS = 10

_SIZES = Path("/proc/self/statm")
_OUT_OF_MEMORY_SCORE = Path("/proc/self/oom_score_adj")
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def confine() -> None:
    """Let others go first, die with the parent, be the first that the kernel ends when memory is short, dump no core.

    Signals that ask a whole group of processes to end are the router's business; it ends its worker itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        _OUT_OF_MEMORY_SCORE.write_text("1000")


def address_space() -> int:
    """Return how many bytes of addresses this process holds; 0 where the system does not say."""
    try:
        return int(_SIZES.read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def allow_memory(more: int) -> int:
    """Let this process grow by so many bytes, and return its size; where that is unknown, there is no limit."""
    if size := address_space():
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + more
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    return size
