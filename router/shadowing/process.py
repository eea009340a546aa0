"""A worker process as the router sees it: started, talked to over a socket, killed and buried."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from router.shadowing.launch import Launch
from router.shadowing.messages import Order, Report, frames, reports
from router.shadowing.patience import Scheduled

_SECRETS = ("TURNOUT_API_KEY", "TURNOUT_DATABASE", "TURNOUT_SECRET")
# A worker computes one thing at a time; threads of a numeric library would compete with the router.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Every arena of the allocator takes addresses that count against the limit.
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}

_PROCESSES = Path("/proc")
_READY = "R"
_NANOSECONDS = 1e9

_PATIENCE_S = 5.0
"""How long the system may take to end a process that was killed."""


class WorkerProcess(asyncio.Protocol):
    """One worker process, started at once; used from one event loop.

    Raises:
        OSError: The system has no room for one more process.
    """

    def __init__(self, launch: Launch, received: Callable[[Report], None]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _spawn(launch, theirs)
            except OSError:
                self._line.close()
                raise
        self._received = received
        self._reports = reports()
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing more will be received."""

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def scheduled(self) -> Scheduled:
        """Return what the worker's main thread, in which shadows are called, got of the processors."""
        folder = _PROCESSES / str(self.pid)
        try:
            computed, waited = (folder / "schedstat").read_text().split()[:2]
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return Scheduled()
        return Scheduled(int(computed) / _NANOSECONDS, int(waited) / _NANOSECONDS, state == _READY)

    async def listen(self) -> None:
        """Begin to pass on what the worker reports; it takes calls when it says that it has started."""
        self._line.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._line)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the line to the worker."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what the worker reports; one that makes no sense is killed."""
        try:
            for report in self._reports.feed(data):
                self._received(report)
        except ValueError:
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for the end."""
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, orders: Iterable[Order]) -> None:
        """Send orders, unless the worker has ended."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames(orders))

    def kill(self) -> None:
        """End the process at once, and whatever it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._transport is None:
            self._line.close()
        else:
            self._transport.abort()

    async def bury(self) -> str:
        """Make sure that the process has ended and return how."""
        self.kill()
        try:
            status = await asyncio.to_thread(self._process.wait, _PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "does not end"
        return f"ended with signal {-status}" if status < 0 else f"ended with status {status}"


def _spawn(launch: Launch, line: socket.socket) -> subprocess.Popen[bytes]:
    number = line.fileno()
    arguments = (str(number), str(launch.registry), launch.loader, str(launch.memory_bytes))
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return subprocess.Popen(  # noqa: S603 (this interpreter, this program)
        [sys.executable, "-m", __package__ + ".worker", *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=[number],
        # A group of its own can be killed whole; a session of its own would get its own share of the processor.
        process_group=0,
        env={**environment, **_ONE_THREAD, **_ONE_ARENA, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
