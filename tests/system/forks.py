"""`turnout` processes forked from one that has imported everything: a start takes tenths of a second, not seconds.

They are processes like any other: own memory, own descriptors, killed by `kill -9`.
`python -m tests.system.forks SOCKET` listens for orders; whoever sends one gets the process id, and its exit status
once it has ended.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.system import killed_router
from tests.system.processes import Process

_IMPORTED = ("router.http.app", "router.commands.serve", "router.verification", "models.runtime", "psycopg", "uvicorn")


class Forked:
    """A forked process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line.makefile("r")
        self._socket = line
        self._status: int | None = None
        self.pid = int(self._line.readline())

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        try:
            return self.wait(0.001)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended."""
        if self._status is None:
            self._socket.settimeout(timeout)
            try:
                answer = self._socket.recv(16)
            except TimeoutError:
                raise subprocess.TimeoutExpired("turnout", timeout or 0) from None
            self._status = os.waitstatus_to_exitcode(int(answer))
            self._line.close()
            self._socket.close()
        return self._status

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class Forks:
    """Starts processes; `killed_at` starts one that kills itself at a named point."""

    def __init__(self, address: Path) -> None:
        self._address = address

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start `turnout` with these arguments."""
        return self._order(arguments, environment, log, None)

    def killed_at(self, point: str, passage: int) -> "_KilledAt":
        """Return a launch of processes that kill themselves at the given passage of a point."""
        return _KilledAt(self, point, passage)

    def _order(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, kill: tuple[str, int] | None
    ) -> Forked:
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self._address))
        order = {"arguments": list(arguments), "environment": dict(environment), "log": str(log), "kill": kill}
        line.sendall(json.dumps(order).encode() + b"\n")
        return Forked(line)


class _KilledAt:
    def __init__(self, forks: Forks, point: str, passage: int) -> None:
        self._forks = forks
        self._kill = (point, passage)

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        return self._forks._order(arguments, environment, log, self._kill)


@contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    """Run the process that the others are forked from."""
    address, log = folder / "forks.socket", folder / "forks.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.system.forks", str(address)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while not address.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"nothing to fork from:\n{log.read_text()}")
            time.sleep(0.02)
        yield Forks(address)
    finally:
        server.kill()
        server.wait()


def main(address: str) -> NoReturn:
    """Wait for orders until killed."""
    for module in _IMPORTED:
        __import__(module)
    # Nobody waits for those that wait for the routers.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    Path(address + ".new").rename(address)
    while True:
        line, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _carry_out(line)
        line.close()


def _carry_out(line: socket.socket) -> NoReturn:
    """Start what is ordered, say its process id, wait for its end and say its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with line.makefile("r") as orders:
        order = json.loads(orders.readline())
    pid = os.fork()
    if pid == 0:
        line.close()
        _become_turnout(order)
    line.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    line.sendall(str(status).encode())
    os._exit(0)


def _become_turnout(order: Mapping[str, Any]) -> NoReturn:
    output = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["kill"] is not None:
        killed_router.install(*order["kill"])
    status = 1
    try:
        killed_router.run(order["arguments"])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 (as an interpreter ends)
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1])
