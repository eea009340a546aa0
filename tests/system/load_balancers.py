"""A real nginx in front of routers, with the configuration that is published in `deploy/`."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.system.processes import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
_PUBLISHED_PORT, _PUBLISHED_REPLICAS = 8400, (8401, 8402)

# What a distribution's own nginx.conf has around it; everything that is written goes to the test's folder.
_AROUND = """\
daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    include {folder}/turnout.conf;
}}
"""


def problem() -> str | None:
    """Return why there can be no nginx, or None."""
    return None if _program() else "no nginx on the path or in /usr/sbin"


@contextmanager
def nginx(ports: Sequence[int], folder: Path) -> Iterator[str]:
    """Run nginx in front of two routers on these ports and yield its address."""
    port, program, log = free_port(), _program(), folder / "nginx.log"
    assert program is not None
    (folder / "turnout.conf").write_text(_published(port, ports))
    # Workers of another user could not write below the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    around = folder / "nginx.conf"
    around.write_text(_AROUND.format(folder=folder, user=user))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-e", str(log), "-c", str(around)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_listening(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _published(port: int, ports: Sequence[int]) -> str:
    text = CONFIGURATION.read_text()
    listen = f"listen {_PUBLISHED_PORT} "
    assert listen in text
    # Beyond loopback nobody needs to reach it.
    text = text.replace(listen, f"listen 127.0.0.1:{port} ")
    for published, actual in zip(_PUBLISHED_REPLICAS, ports, strict=True):
        assert f"127.0.0.1:{published} " in text
        text = text.replace(f"127.0.0.1:{published} ", f"127.0.0.1:{actual} ")
    return text


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            told = log.read_text() if log.exists() else "it said nothing"
            assert process.poll() is None, f"nginx did not start: {told}"
            assert time.monotonic() < deadline, f"nginx does not listen: {told}"
            time.sleep(0.02)
        else:
            return


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
