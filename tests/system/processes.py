"""Real router processes for the tests of this folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


class Router:
    """A `turnout serve` process over a state folder."""

    def __init__(self, state: Path, registry: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state / "router.log"
        self.environment = {
            **os.environ,
            "TURNOUT_DATABASE": f"sqlite:///{state}/ledger.db",
            "TURNOUT_REGISTRY": str(registry),
            "TURNOUT_PORT": str(self.port),
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router", "serve", *options],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Return once it answers that it is ready; fail with its output otherwise."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the router is not ready:\n{self.log.read_text()}")

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """End it in good order and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


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
