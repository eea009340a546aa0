"""Two replicas behind nginx, each restarted and each killed, while a hundred requests arrive every second.

`RESTART_S` is how long replicas are restarted one right after the other, at least once each in either way.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise

import httpx
import pytest

from tests.databases import require
from tests.system.conftest import create_experiment_on
from tests.system.load_balancers import nginx, problem
from tests.system.processes import Router, launch_command
from tests.system.sites import Site
from tests.system.traffic import Book, Failure, inputs, outcomes_of

RESTART_S = float(os.environ.get("RESTART_S", "12"))
PER_SECOND = 100

ENDS = (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL)

pytestmark = [pytest.mark.system, pytest.mark.timeout(180 + 2 * RESTART_S)]


class Arrivals:
    """Predictions with ids that each start at their time, whatever became of the others, and are tried once."""

    def __init__(self, url: str, book: Book) -> None:
        self._url = f"{url}/v1/endpoints/delay/predict"
        self._book = book
        self._stopping = False
        self._problem: BaseException | None = None
        self.begun_s = 0.0
        self.late_s = 0.0
        """By how much a request was started too late, at most."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let requests arrive while the block runs, and wait for the last answers."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        thread.start()
        try:
            yield
        finally:
            self._stopping = True
            thread.join()
        if self._problem is not None:
            raise self._problem

    def wait_for(self, answers: int, seconds: float = 30.0) -> None:
        """Return when this many more requests have been answered."""
        wanted, deadline = len(self._book.answered_s) + answers, time.monotonic() + seconds
        while len(self._book.answered_s) < wanted:
            assert self._problem is None, self._problem
            assert time.monotonic() < deadline, f"no {answers} answers in {seconds:g} s: {self._book.failures[-3:]}"
            time.sleep(0.02)

    def longest_gap_s(self) -> float:
        """Return the longest time from one successful answer to the next."""
        times = sorted([self.begun_s, *(at_s for at_s, _ in self._book.answered_s)])
        return max(later - earlier for earlier, later in pairwise(times))

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        try:
            async with (
                httpx.AsyncClient(timeout=10, limits=limits, verify=False) as http,  # noqa: S501
                asyncio.TaskGroup() as requests,
            ):
                self.begun_s = time.monotonic()
                for number in count():
                    due_s = self.begun_s + number / PER_SECOND
                    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                    if self._stopping:
                        return
                    self.late_s = max(self.late_s, time.monotonic() - due_s)
                    requests.create_task(self._predict(http, number))
        except BaseException as problem:  # noqa: BLE001 (raised where the load was started)
            self._problem = problem

    async def _predict(self, http: httpx.AsyncClient, number: int) -> None:
        unit, key = f"u{number}", f"key-{number}"
        began_s = time.monotonic()
        try:
            response = await http.post(self._url, json={"unit": unit, "id": key, "inputs": inputs(number)})
        except httpx.TransportError as error:
            self._book.failures.append(Failure(time.monotonic(), "predict", repr(error)))
            return
        if response.status_code != 200:
            self._book.failures.append(Failure(time.monotonic(), "predict", response.text))
            return
        reply = response.json()
        self._book.answered_s.append((time.monotonic(), time.monotonic() - began_s))
        self._book.decisions[reply["decision_id"]] = reply
        self._book.units[reply["decision_id"]] = unit
        self._book.keyed[key] = {reply["decision_id"]}


def replace(site: Site, router: Router, end: signal.Signals) -> Router:
    """End a router in this way, and start its successor where it was."""
    router.process.send_signal(end)
    # After an end in good order, too, the signal is passed on to whoever started the router.
    assert router.process.wait(20) == -end, router.log.read_text()
    # Started as a person does it, which takes its time: nginx meets a port that nobody listens on, or not yet.
    return site.ready(port=router.port, launch=launch_command)


def replace_in_turn(site: Site, routers: list[Router]) -> int:
    """Replace the replicas one right after the other, and return how many were killed, and as many stopped."""
    ends_s, rounds = time.monotonic() + RESTART_S, 0
    while rounds == 0 or time.monotonic() < ends_s:
        for end in ENDS:
            routers.append(replace(site, routers.pop(0), end))
        rounds += 1
    return rounds * ENDS.count(signal.SIGKILL)


@pytest.mark.parametrize("site", ["postgresql"], indirect=True)
def test_no_request_fails_while_each_replica_is_restarted_and_killed(
    site: Site, tally: Callable[[object], None]
) -> None:
    require("nginx", problem())
    book, routers = Book(), [site.ready(), site.ready()]
    create_experiment_on(routers)
    with nginx([router.port for router in routers], site.folder) as url:
        arrivals = Arrivals(url, book)
        with arrivals.running():
            arrivals.wait_for(PER_SECOND)
            kills = replace_in_turn(site, routers)
            arrivals.wait_for(PER_SECOND)
    book.owed |= {row for decision_id in book.decisions for row in outcomes_of(decision_id)}
    found = site.audit(book, routers)
    requests, gap_s = len(book.answered_s) + len(book.failures), arrivals.longest_gap_s()
    tally(
        f"{kills} stops and {kills} kills, {requests} requests, failed {len(book.failures)}, longest gap "
        f"{gap_s:.2f} s, slowest answer {book.slowest_s():.2f} s, started at most {arrivals.late_s:.2f} s late, {found}"
    )
    assert len(book.answered_s) >= 0.999 * requests, book.failures[:5]
    # Where the load itself began late, on a busy machine, that is no gap of the routers.
    assert gap_s <= 1.0 + arrivals.late_s
    found.assert_clean()
