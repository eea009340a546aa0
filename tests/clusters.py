"""A PostgreSQL server of the tests' own, which they may stop, freeze and start again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # A test that ends must not wait for a checkpoint.
    "checkpoint_timeout": "1h",
}


class Cluster:
    """A server over a folder. It keeps its port over restarts."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self.pid_file = folder / "data" / "postmaster.pid"
        """There while it runs."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync")

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers; it recovers what was committed when it stopped."""
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self._folder)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "--wait", "--timeout=60", f"--log={self._folder}/log", f"--options={options}", "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: `immediate` as a crash does, `fast` in good order; either way connections are broken."""
        self._run("pg_ctl", "--wait", "--timeout=60", f"--mode={how}", "stop")

    def freeze(self) -> None:
        """Let it keep its connections, and do nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def create_database(self) -> str:
        """Return the address of a new, empty database."""
        name = f"turnout_test_{uuid.uuid4().hex}"
        self._run("createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=postgres", name)
        return f"{self.url.removesuffix('/postgres')}/{name}"

    def _signal(self, number: signal.Signals) -> None:
        postmaster = int(self.pid_file.read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PGDATA": str(self._folder / "data")}
        command = [*_AS_ITS_USER, str(self._programs / program), *arguments]
        output = self._folder / "commands.log"
        with output.open("ab") as log:
            # Not a pipe: the server would keep it open.
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        assert done.returncode == 0, f"{program} failed: {output.read_text()}"


# PostgreSQL refuses to run as root.
_AS_ITS_USER = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def problem() -> str | None:
    """Return why there can be no cluster, or None."""
    if _programs() is None:
        return "no initdb in /usr/lib/postgresql/*/bin or on the path"
    if _AS_ITS_USER and subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode != 0:
        return "root cannot run it, and there is no user postgres"
    return None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a server until the block ends."""
    programs = _programs()
    assert programs is not None
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="turnout-postgresql-", ignore_cleanup_errors=True) as name:
        if _AS_ITS_USER:
            shutil.chown(name, "postgres")
        running = Cluster(Path(name), programs)
        try:
            running.start()
            yield running
        finally:
            if running.pid_file.exists():
                running.thaw()
                running.stop()


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    initdb = found[-1] if found else Path(on_path) if on_path else None
    return None if initdb is None else initdb.resolve().parent
