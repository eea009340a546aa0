"""The disk is full: nothing is acknowledged that is not on it, and service resumes by itself when there is room."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.databases import require
from tests.proxies import Proxy
from tests.system.conftest import create_experiment, until
from tests.system.forks import Forks
from tests.system.processes import Router
from tests.system.sites import Site
from tests.system.traffic import Book, Traffic

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

DISK_BYTES = 16 * 1024 * 1024

Tally = Callable[[object], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    require("tmpfs", None if mounted is not None and mounted.returncode == 0 else "only root may mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


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
            filler.unlink()
            traffic.wait_for(50)
            assert router.health() == "degraded"
            line.restore()
            until(lambda: router.health() == "ready")
            traffic.wait_for(50)
        finish(own_site, router, book, tally)
