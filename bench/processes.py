"""What processes take of the machine: processor time, memory and bytes written, as Linux counts them in /proc."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MIB = 2**20

# Of /proc/PID/stat behind the name, which may hold spaces: parent, then the times of it and of its dead children.
_PARENT, _USER, _SYSTEM, _DEAD_USER, _DEAD_SYSTEM = 1, 11, 12, 13, 14


class Spent(NamedTuple):
    """Processor time in seconds, and bytes that went to a disk; a difference of two readings is what was spent."""

    user_s: float = 0.0
    system_s: float = 0.0
    written_bytes: int = 0

    @property
    def seconds(self) -> float:
        """All of the processor time."""
        return self.user_s + self.system_s

    def since(self, before: "Spent") -> "Spent":
        """Return what was spent after an earlier reading."""
        return Spent(
            self.user_s - before.user_s,
            self.system_s - before.system_s,
            self.written_bytes - before.written_bytes,
        )


class Memory(NamedTuple):
    """MiB of some processes: resident, proportional (shared pages count once), and what they allocated themselves."""

    rss_mib: float
    pss_mib: float
    anonymous_mib: float


def tree(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for each in _all():
        with suppress(OSError):
            children.setdefault(int(_stat(each)[_PARENT]), []).append(each)
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found


def named(name: str) -> list[int]:
    """Return the processes of that name, such as those of a database server."""
    found = []
    for pid in _all():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def spent(pids: Iterable[int]) -> Spent:
    """Return what processes have spent since they began, and their ended children with them.

    The times are counted in hundredths of a second; bytes are counted of the processes that may be asked for them.
    """
    user = system = written = 0
    for pid in pids:
        with suppress(OSError):
            fields = _stat(pid)
            user += int(fields[_USER]) + int(fields[_DEAD_USER])
            system += int(fields[_SYSTEM]) + int(fields[_DEAD_SYSTEM])
            written += _written(pid)
    return Spent(user / _TICKS_PER_S, system / _TICKS_PER_S, written)


def memory(pids: Iterable[int]) -> Memory:
    """Return the memory of processes together."""
    rss = pss = anonymous = 0
    for pid in pids:
        with suppress(OSError):
            kibibytes = _kibibytes(Path(f"/proc/{pid}/smaps_rollup").read_text())
            rss += kibibytes["Rss"]
            pss += kibibytes["Pss"]
            anonymous += kibibytes["Anonymous"]
    return Memory(rss * 1024 / _MIB, pss * 1024 / _MIB, anonymous * 1024 / _MIB)


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def _kibibytes(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) == 3 and line[2] == "kB"}
