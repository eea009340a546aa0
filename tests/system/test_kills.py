"""Two routers on one ledger, killed again and again at any moment, while clients go on.

`KILLS=200` is the full strength: two hundred kills per database.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.conftest import create_experiment_on, until
from tests.system.processes import Router, launch_command
from tests.system.sites import Site
from tests.system.traffic import Book, Traffic

KILLS = int(os.environ.get("KILLS", "6"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(120 + 8 * KILLS)]

_LONGEST_S = 0.3
"""From a router's first answer to its kill, at most."""

CLIENTS = 16


def kill_in_turn(site: Site, routers: list[Router], rng: random.Random) -> None:
    """Kill the one that was started first, wherever the other is with its start; then start its successor."""
    for _ in range(KILLS):
        router = routers.pop(0)
        if rng.random() < 0.9:
            router.wait_until_ready()
        time.sleep(rng.uniform(0, _LONGEST_S))
        router.kill()
        routers.append(site.start(port=router.port))


def test_killed_at_any_moment_under_load(site: Site, tally: Callable[[object], None]) -> None:
    began_s, seed = time.monotonic(), random.randrange(1000)
    routers = [site.ready(), site.ready()]
    create_experiment_on(routers)
    book = Book()
    traffic = Traffic([router.url for router in routers], book, clients=CLIENTS, pause_s=0.005)
    with traffic.running():
        traffic.wait_for(20)
        kill_in_turn(site, routers, random.Random(seed))
    for router in routers:
        router.wait_until_ready()
    found = site.audit(book, routers)
    tally(f"{len(site.routers) - 2} kills in {time.monotonic() - began_s:.0f} s (seed {seed}), {found}")
    # A key that met a spool may have been decided by two routers, neither of which could know.
    found.assert_clean(keys_shared="the ledger is away" not in routers[0].log.read_text())


def test_killed_at_any_moment_while_the_ledger_comes_and_goes(site: Site, tally: Callable[[object], None]) -> None:
    began_s, seed = time.monotonic(), random.randrange(1000)
    rng, settings = random.Random(seed), {"TURNOUT_LEDGER_TIMEOUT_S": "0.2"}
    with site.lines(2) as lines:
        pairs = [(site.ready(line=line, settings=settings), line) for line in lines]
        create_experiment_on([router for router, _ in pairs])
        book = Book()
        traffic = Traffic([router.url for router, _ in pairs], book, clients=CLIENTS, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(20)
            for _ in range(KILLS):
                router, line = pairs.pop(0)
                router.wait_until_ready()
                with site.away(line):
                    time.sleep(rng.uniform(0, 2 * _LONGEST_S))
                    if rng.random() < 0.5:
                        router.kill()
                time.sleep(rng.uniform(0, _LONGEST_S))
                router.kill()
                # It may take over a spool of a predecessor's, or of the other router's.
                pairs.append((site.start(line=line, port=router.port, settings=settings), line))
        for router, _ in pairs:
            router.wait_until_ready()
        found = site.audit(book, [router for router, _ in pairs])
    tally(f"{len(site.routers) - 2} kills in {time.monotonic() - began_s:.0f} s (seed {seed}), {found}")
    assert "the ledger is away" in router.log.read_text()
    found.assert_clean(keys_shared=False)


def workers_of(router: Router) -> list[int]:
    """Return the process ids of a router's workers."""
    children = Path(f"/proc/{router.process.pid}/task/{router.process.pid}/children").read_text().split()
    found = []
    for pid in children:
        # A child may end between the look at its parent and the look at itself.
        with suppress(FileNotFoundError, ProcessLookupError):
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
    return found


def test_killed_workers_are_replaced_and_none_outlives_its_parent(site: Site, tally: Callable[[object], None]) -> None:
    router = site.ready(launch=launch_command, options=("--workers", "2"))
    until(lambda: len(workers_of(router)) == 2)
    create_experiment_on([router] * 20)
    book = Book()
    traffic = Traffic([router.url], book, pause_s=0.005)
    with traffic.running():
        traffic.wait_for(50)
        for pid in workers_of(router):
            os.kill(pid, signal.SIGKILL)
            until(lambda: pid not in workers_of(router) and len(workers_of(router)) == 2)  # noqa: B023
            traffic.wait_for(50)
        orphans = workers_of(router)
        router.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    found = site.audit(book, [site.ready(port=router.port)])
    tally(f"2 workers and their parent killed, {found}")
    found.assert_clean()
