"""`kill -9` at every named point between a request and its answer, and between the spool and the ledger.

`PASSAGES` lists at which passages of a point the router dies; `PASSAGES=1,2,5,40,200` is the full strength.
"""

import os
from collections.abc import Callable

import pytest

from tests.proxies import Proxy
from tests.system.conftest import create_experiment
from tests.system.killed_router import AWAY_POINTS, DRAIN_POINTS, POINTS
from tests.system.processes import Router
from tests.system.sites import Site
from tests.system.traffic import Book, Traffic

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PASSAGES = [int(passage) for passage in os.environ.get("PASSAGES", "1,9").split(",")]

Tally = Callable[[object], None]


def die(router: Router) -> None:
    """Wait for a router's end and check that it was its own kill."""
    assert router.process.wait(60) == -9, router.log.read_text()


def doomed(site: Site, point: str, passage: int, line: Proxy | None) -> Router:
    router = site.ready(line=line, launch=site.forks.killed_at(point, passage))
    if len(site.routers) == 1:
        create_experiment(router.url)
    return router


def finish(site: Site, book: Book, line: Proxy | None, tally: Tally, *, keys_shared: bool) -> None:
    router = site.ready(line=line)
    traffic = Traffic([router.url], book, name="again-")
    with traffic.running():
        traffic.wait_for(20, outcomes=20)
    found = site.audit(book, [router])
    tally(f"{len(PASSAGES)} kills, {found}")
    found.assert_clean(keys_shared=keys_shared)


@pytest.mark.parametrize("point", POINTS)
def test_killed_while_the_ledger_is_there(site: Site, point: str, tally: Tally) -> None:
    book = Book()
    for passage in PASSAGES:
        router = doomed(site, point, passage, None)
        with Traffic([router.url], book, name=f"{passage}-").running():
            die(router)
    finish(site, book, None, tally, keys_shared=True)


@pytest.mark.parametrize("point", AWAY_POINTS)
def test_killed_while_the_ledger_is_away(site: Site, point: str, tally: Tally) -> None:
    book = Book()
    with site.lines(1) as [line]:
        for passage in PASSAGES:
            router = doomed(site, point, passage, line)
            traffic = Traffic([router.url], book, name=f"{passage}-")
            with traffic.running():
                traffic.wait_for(20)
                with site.away(line):
                    die(router)
        finish(site, book, line, tally, keys_shared=False)


@pytest.mark.parametrize("point", DRAIN_POINTS)
def test_killed_while_the_spool_drains(site: Site, point: str, tally: Tally) -> None:
    book = Book()
    with site.lines(1) as [line]:
        router = doomed(site, point, PASSAGES[0], line)
        traffic = Traffic([router.url], book)
        with traffic.running():
            traffic.wait_for(20)
            with site.away(line):
                traffic.wait_for(5 * sum(PASSAGES), 60)
                assert router.health() == "degraded"
            die(router)
        # The next ones die while they drain what the first has left behind.
        for passage in PASSAGES[1:]:
            die(site.start(line=line, launch=site.forks.killed_at(point, passage)))
        finish(site, book, line, tally, keys_shared=False)
