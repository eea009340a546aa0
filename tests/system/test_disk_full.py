"""The disk is full: nothing is acknowledged that is not on it, and service resumes by itself when there is room."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.clusters import Cluster
from tests.databases import BACKENDS, require
from tests.proxies import Proxy
from tests.system.conftest import create_experiment, until
from tests.system.forks import Forks
from tests.system.processes import Router
from tests.system.sites import Site
from tests.system.traffic import ENDPOINT, Book, Traffic, inputs

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

DISK_BYTES = 32 * 1024 * 1024

PREDICT = f"/v1/endpoints/{ENDPOINT}/predict"

Tally = Callable[[object], None]


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small file system of its own."""
    # Not below pytest's own folder, which the user of PostgreSQL may not enter.
    with tempfile.TemporaryDirectory(prefix="turnout-disk-") as name:
        Path(name).chmod(0o755)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", name]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
        require("tmpfs", _problem_of(mounted))
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def _problem_of(mounted: subprocess.CompletedProcess[str] | None) -> str | None:
    if mounted is None:
        return "only root may mount one"
    return mounted.stderr.strip() or "mount failed" if mounted.returncode else None


@pytest.fixture(params=BACKENDS)
def site_on_disk(
    request: pytest.FixtureRequest, disk: Path, tmp_path: Path, registry: Path, forks: Forks
) -> Iterator[Site]:
    """An empty ledger on the small disk; its spool is elsewhere."""
    if request.param == "sqlite":
        made = Site(f"sqlite:///{disk}/ledger.db", tmp_path, registry, forks)
        try:
            yield made
        finally:
            made.stop()
        return
    with database_on(disk, request.getfixturevalue("cluster")) as url:
        made = Site(url, tmp_path, registry, forks)
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def database_on(disk: Path, cluster: Cluster) -> Iterator[str]:
    """Make a database of which everything but the write-ahead log is on a disk."""
    import psycopg

    folder = disk / "tablespace"
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"create tablespace small location '{folder}'".encode())
        connection.execute("create database on_small_disk tablespace small")
        try:
            yield make_url(cluster.url).set(database="on_small_disk").render_as_string(hide_password=False)
        finally:
            connection.execute("drop database on_small_disk with (force)")
            connection.execute("drop tablespace small")


def fill(disk: Path) -> Path:
    """Leave no room, and return the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        for size in (65_536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


def refused(book: Book) -> int:
    return sum("503" in failure.why for failure in book.failures)


def assert_tells_to_try_again(router: Router, book: Book) -> None:
    """Ask on both paths until each says so: now and then the router tries the ledger, which may know the answer."""
    # Acknowledged before, so that it changes nothing if it is accepted again.
    known = next(iter(book.outcomes.copy())).row()
    asked = {PREDICT: {"unit": "probe", "inputs": inputs(0)}, "/v1/outcomes": known}
    with httpx.Client(base_url=router.url, verify=False) as http:  # noqa: S501
        for path, body in asked.items():
            until(lambda path=path, body=body: is_told_to_try_again(http.post(path, json=body)))  # type: ignore[misc]


def is_told_to_try_again(response: httpx.Response) -> bool:
    return response.status_code == 503 and response.headers["Retry-After"] == "1"


def finish(site: Site, router: Router, book: Book, tally: Tally) -> None:
    found = site.audit(book, [router])
    log = router.log.read_text()
    tally(f"{refused(book)} requests refused, {len(log.splitlines())} lines logged, {found}")
    assert "Traceback" not in log
    assert len(log.splitlines()) < 50, log
    found.assert_clean(keys_shared=False)


def test_a_full_disk_refuses_and_loses_nothing(
    disk: Path, tmp_path: Path, registry: Path, forks: Forks, tally: Tally
) -> None:
    site, book = Site(f"sqlite:///{disk}/ledger.db", tmp_path, registry, forks), Book()
    try:
        router = site.ready(settings={"TURNOUT_SPOOL": f"{disk}/spool"})
        create_experiment(router.url)
        traffic = Traffic([router.url], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(100)
            filler = fill(disk)
            until(lambda: refused(book) > 100)
            assert_tells_to_try_again(router, book)
            filler.unlink()
            traffic.wait_for(100)
        finish(site, router, book, tally)
    finally:
        site.stop()


def test_a_spool_whose_disk_is_full_refuses_and_loses_nothing(own_site: Site, disk: Path, tally: Tally) -> None:
    book = Book()
    with own_site.lines(1) as [line]:
        assert isinstance(line, Proxy)
        router = own_site.ready(line=line, settings={"TURNOUT_SPOOL": f"{disk}/spool"})
        create_experiment(router.url)
        traffic = Traffic([router.url], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(50)
            line.cut()
            traffic.wait_for(50)
            filler = fill(disk)
            until(lambda: refused(book) > 100)
            assert_tells_to_try_again(router, book)
            filler.unlink()
            traffic.wait_for(50)
            assert router.health() == "degraded"
            line.restore()
            until(lambda: router.health() == "ready")
            traffic.wait_for(50)
        finish(own_site, router, book, tally)


def test_a_ledger_whose_disk_is_full_counts_as_away(site_on_disk: Site, disk: Path, tally: Tally) -> None:
    book = Book()
    router = site_on_disk.ready()
    create_experiment(router.url)
    traffic = Traffic([router.url], book, pause_s=0.005)
    with traffic.running():
        traffic.wait_for(50)
        filler = fill(disk)
        until(lambda: router.health() == "degraded")
        traffic.wait_for(300)
        assert router.health() == "degraded"
        filler.unlink()
        until(lambda: router.health() == "ready", 60)
        traffic.wait_for(50)
    finish(site_on_disk, router, book, tally)
    assert book.failed_predictions() == []
