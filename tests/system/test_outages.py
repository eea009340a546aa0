"""The database goes away under load in every way it can, and comes back.

`OUTAGE_S` is how long it is away in all; `OUTAGE_S=30` is the full strength.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.clusters import Cluster
from tests.proxies import Proxy
from tests.system.conftest import create_experiment, until
from tests.system.sites import Site
from tests.system.traffic import Book, Traffic

OUTAGE_S = float(os.environ.get("OUTAGE_S", "8"))

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

Outage = Callable[[Cluster, Proxy | None], AbstractContextManager[None]]


@contextmanager
def crashed(cluster: Cluster, _: Proxy) -> Iterator[None]:
    cluster.stop("immediate")
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def stopped(cluster: Cluster, _: Proxy | None) -> Iterator[None]:
    cluster.stop("fast")
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def cut(_: Cluster, line: Proxy) -> Iterator[None]:
    line.cut()
    yield
    line.restore()


@contextmanager
def silent(_: Cluster, line: Proxy) -> Iterator[None]:
    line.silence()
    yield
    line.restore()


@contextmanager
def frozen(cluster: Cluster, _: Proxy) -> Iterator[None]:
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


OUTAGES = [crashed, stopped, cut, silent, frozen]


@pytest.mark.parametrize("outage", OUTAGES)
def test_predictions_go_on_while_the_database_is(
    own_site: Site, cluster: Cluster, outage: Outage, tally: Callable[[object], None]
) -> None:
    book = Book()
    with own_site.lines(1) as [line]:
        router = own_site.ready(line=line)
        create_experiment(router.url)
        traffic = Traffic([router.url], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(50)
            with outage(cluster, line):
                until(lambda: router.health() == "degraded")
                away_s = time.monotonic()
                traffic.wait_for(50)
                time.sleep(max(0.0, OUTAGE_S / len(OUTAGES) - (time.monotonic() - away_s)))
                assert router.health() == "degraded"
            back_s = until(lambda: router.health() == "ready")
            traffic.wait_for(50)
        found = own_site.audit(book, [router])
    tally(
        f"{len(book.failed_predictions())} predictions failed, slowest reply {book.slowest_s():.2f} s, "
        f"ready {back_s:.1f} s after it was back, {found}"
    )
    assert book.failed_predictions() == []
    found.assert_clean(keys_shared=False)


def test_predictions_go_on_while_connections_break(own_site: Site, tally: Callable[[object], None]) -> None:
    book = Book()
    with own_site.lines(1) as [line]:
        assert line is not None
        router = own_site.ready(line=line)
        create_experiment(router.url)
        traffic = Traffic([router.url], book, pause_s=0.005)
        with traffic.running():
            for _ in range(20):
                traffic.wait_for(10)
                line.break_connections()
        found = own_site.audit(book, [router])
    tally(f"{len(book.failed_predictions())} predictions failed, slowest reply {book.slowest_s():.2f} s, {found}")
    assert book.failed_predictions() == []
    found.assert_clean(keys_shared=False)


@pytest.mark.parametrize("outage", [cut, silent])
def test_a_router_stops_in_good_order_while_the_database_is(
    own_site: Site, cluster: Cluster, outage: Outage, tally: Callable[[object], None]
) -> None:
    book = Book()
    with own_site.lines(1) as [line]:
        router = own_site.ready(line=line)
        create_experiment(router.url)
        traffic = Traffic([router.url], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(50)
            with outage(cluster, line):
                until(lambda: router.health() == "degraded")
                traffic.wait_for(50)
                began_s = time.monotonic()
                assert router.stop() == -signal.SIGTERM
                took_s = time.monotonic() - began_s
        assert "Traceback" not in router.log.read_text()
        found = own_site.audit(book, [own_site.ready(line=line)])
    tally(f"stopped in {took_s:.1f} s, {found}")
    found.assert_clean(keys_shared=False)
