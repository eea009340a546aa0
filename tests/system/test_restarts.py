"""Routers are restarted in turn behind nginx, under a load that does not wait for them.

`RESTART_S=60` loads for that long, in which as many restarts are made as fit.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.databases import require
from tests.system.conftest import create_experiment_on, until
from tests.system.processes import Router, free_port
from tests.system.sites import Site
from tests.system.traffic import Book, Failure, inputs, outcomes_of

RESTART_S = float(os.environ.get("RESTART_S", "12"))
PER_SECOND = 100

pytestmark = [pytest.mark.system, pytest.mark.timeout(120 + 2 * RESTART_S)]

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"


@contextmanager
def nginx(folder: Path, routers: Sequence[Router]) -> Iterator[str]:
    """Run nginx with the configuration that users get, only the ports exchanged, and yield its address."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    require("nginx", None if program else "no nginx on the path")
    port, text = free_port(), CONFIGURATION.read_text()
    for written, ours in {"8400": routers[0].port, "8401": routers[1].port, "8500": port}.items():
        assert text.count(f"127.0.0.1:{written}") == 1
        text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{ours}")
    (folder / "nginx.conf").write_text(text)
    errors = f"{folder}/nginx-error.log"
    command = [
        str(program),
        "-p",
        str(folder),
        "-c",
        f"{folder}/nginx.conf",
        "-e",
        errors,
        "-g",
        "daemon off; user root;",
    ]
    if os.geteuid() != 0:
        command[-1] = "daemon off;"
    process = subprocess.Popen(command)
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


async def load(url: str, book: Book, ended: threading.Event) -> None:
    """Start a request at its time, whatever became of those before, and never try again."""
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
    async with httpx.AsyncClient(timeout=20, limits=limits) as http, asyncio.TaskGroup() as group:
        began_s = time.monotonic()
        for number in range(1_000_000):
            await asyncio.sleep(began_s + number / PER_SECOND - time.monotonic())
            if ended.is_set():
                return
            group.create_task(ask(http, url, book, number))


async def ask(http: httpx.AsyncClient, url: str, book: Book, number: int) -> None:
    unit, path = f"u{number}", "/v1/endpoints/delay/predict"
    try:
        response = await http.post(url + path, json={"unit": unit, "inputs": inputs(number), "id": f"key-{unit}"})
        response.raise_for_status()
    except httpx.HTTPError as error:
        book.failures.append(Failure(time.monotonic(), path, repr(error)))
        return
    reply = response.json()
    book.decisions[reply["decision_id"]] = reply
    book.units[reply["decision_id"]] = unit
    book.keyed.setdefault(f"key-{unit}", set()).add(reply["decision_id"])
    book.answered_s.append((time.monotonic(), response.elapsed.total_seconds()))


def restart_in_turn(site: Site, routers: list[Router]) -> tuple[int, int]:
    """Stop one while the other serves, start its successor on its port and wait until that is ready; then the other."""
    ends_s, stops, kills = time.monotonic() + RESTART_S, 0, 0
    while time.monotonic() < ends_s:
        killing = stops > kills
        for turn in range(2):
            if killing:
                routers[turn].kill()
            else:
                assert routers[turn].stop() in {0, -signal.SIGTERM}
            stops, kills = stops + (not killing), kills + killing
            routers[turn] = site.ready(port=routers[turn].port)
    return stops, kills


def test_restarted_in_turn_behind_nginx(site: Site, tally: Callable[[object], None]) -> None:
    routers = [site.ready(), site.ready()]
    create_experiment_on(routers)
    book, ended = Book(), threading.Event()
    with nginx(site.folder, routers) as url:
        thread = threading.Thread(target=lambda: asyncio.run(load(url, book, ended)))
        thread.start()
        try:
            stops, kills = restart_in_turn(site, routers)
        finally:
            ended.set()
            thread.join()
        rows = [row for text in list(book.decisions)[:200] for row in outcomes_of(text)]
        posted = httpx.post(f"{url}/v1/outcomes", json=[row.row() for row in rows], timeout=30).json()
    assert posted["accepted"] == len(rows)
    book.outcomes |= set(rows)
    found = site.audit(book, routers)
    answered = sorted(at_s for at_s, _ in book.answered_s)
    gap_s = max(after - before for before, after in pairwise(answered))
    success = len(answered) / (len(answered) + len(book.failures))
    tally(
        f"{stops} stops and {kills} kills, {len(answered)} of {len(answered) + len(book.failures)} answered "
        f"({success:.3%}), longest gap {gap_s:.2f} s, slowest {book.slowest_s():.2f} s, {found}"
    )
    assert success >= 0.999, book.failures[:5]
    assert gap_s < 1.0
    found.assert_clean()
