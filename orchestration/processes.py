"""Child processes of a command: started with their output in a file, awaited until they answer, ended with it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import httpx

_POLL_S = 0.1
_GRACE_S = 5.0
_LINES_SHOWN = 15


@contextmanager
def child(
    name: str, command: Sequence[str], ready_url: str, log: Path, *, wait_s: float, environment: Mapping[str, str]
) -> Iterator[None]:
    """Run the command until the block ends; enter the block once `ready_url` answers 200.

    Raises:
        ClickException: It ended, or did not answer in time; with the end of its output.
    """
    if _answers(ready_url):
        raise click.ClickException(f"something answers on {ready_url} already; stop it or choose another port")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (the command is ours)
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            _await(name, process, ready_url, log, time.monotonic() + wait_s)
            yield
        finally:
            _end(process)


def _await(name: str, process: subprocess.Popen[bytes], ready_url: str, log: Path, deadline: float) -> None:
    while not _answers(ready_url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = f"ended with status {process.returncode}" if ended else f"does not answer on {ready_url}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:])
            raise click.ClickException(f"{name} {what}; the end of {log}:\n{tail}")
        time.sleep(_POLL_S)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started in turn."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
