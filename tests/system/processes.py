"""Real router processes for the tests of this folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx


class Process(Protocol):
    """What tests do with a process, however it was started."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...


class Launch(Protocol):
    """A way to start `turnout` with arguments, in an environment, its output going to the end of a file."""

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process: ...


def launch_command(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start the command as a person does."""
    with log.open("ab") as output:
        command = [sys.executable, "-m", "router", *arguments]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


class Router:
    """A `turnout serve` process over a state folder."""

    def __init__(
        self,
        state: Path,
        registry: Path,
        *options: str,
        database: str | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        launch: Launch = launch_command,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state / "router.log"
        self.environment = {
            **os.environ,
            "TURNOUT_DATABASE": database or f"sqlite:///{state}/ledger.db",
            "TURNOUT_SPOOL": f"{state}/spool",
            "TURNOUT_REGISTRY": str(registry),
            "TURNOUT_PORT": str(self.port),
            **(settings or {}),
        }
        self.process = launch(["serve", *options], self.environment, self.log)

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Return once it answers that it is ready; fail with its output otherwise."""
        deadline = time.monotonic() + seconds
        # Reading certificates for every question would take longer than the answer.
        with httpx.Client(base_url=self.url, verify=False) as http:  # noqa: S501
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    if http.get("/health/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.02)
        raise AssertionError(f"the router is not ready:\n{self.log.read_text()}")

    def health(self) -> str:
        """Return its status: `ready`, `degraded` or `unavailable`."""
        with httpx.Client(base_url=self.url, verify=False) as http:  # noqa: S501
            status: str = http.get("/health/ready").json()["status"]
        return status

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """End it in good order and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@contextmanager
def router(state: Path, registry: Path, *options: str) -> Iterator[Router]:
    """Run a router until the block ends."""
    running = Router(state, registry, *options)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
