import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import click
import httpx
import pytest

from orchestration.processes import child
from tests.system.processes import free_port


def serve(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


def test_child_runs_until_the_block_ends(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with child("a server", serve(port), url, tmp_path / "log", wait_s=20, environment={}):
        assert httpx.get(url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_child_that_ends_shows_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('out of coffee'); raise SystemExit(3)"]
    url = f"http://127.0.0.1:{free_port()}/"
    running = child("a server", command, url, tmp_path / "log", wait_s=20, environment={})
    with pytest.raises(click.ClickException, match=r"a server ended with status 3(?s:.*)out of coffee"), running:
        pass


def test_child_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    url = f"http://127.0.0.1:{free_port()}/"
    running = child("a server", command, url, tmp_path / "log", wait_s=0.3, environment={})
    with pytest.raises(click.ClickException, match="a server does not answer"), running:
        pass


def test_child_is_not_started_beside_a_foreign_server(tmp_path: Path) -> None:
    foreign = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = Thread(target=foreign.serve_forever)
    thread.start()
    try:
        port = int(foreign.server_address[1])
        running = child(
            "a server", serve(port), f"http://127.0.0.1:{port}/", tmp_path / "log", wait_s=5, environment={}
        )
        with pytest.raises(click.ClickException, match="something answers on"), running:
            pass
        assert not (tmp_path / "log").exists()
    finally:
        foreign.shutdown()
        thread.join()
        foreign.server_close()
