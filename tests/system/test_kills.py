"""Two routers on one ledger, killed again and again at any moment, while clients go on.

`KILLS=200` is the full strength: two hundred kills per database.
"""

import os
import random
import time
from collections.abc import Callable

import pytest

from tests.system.conftest import create_experiment_on
from tests.system.processes import Router
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
