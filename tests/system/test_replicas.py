"""Several routers on one PostgreSQL database: one may be cut off, any may be told, and none counts twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.client import AsyncTurnout, Turnout
from tests.system.conftest import create_experiment_on, until
from tests.system.processes import Router
from tests.system.sites import Site
from tests.system.traffic import Book, Outcome, Traffic, inputs, outcomes_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

in_postgresql = pytest.mark.parametrize("site", ["postgresql"], indirect=True)
"""Where one router can be cut off; a file is there for all or for none."""

PROMISED_S = 2.0
BATCH, TIMES, CLIENTS = 1000, 20, 8

Tally = Callable[[object], None]


def machine(site: Site, name: str) -> dict[str, str]:
    """Return the settings of a router on a machine of its own."""
    return {"TURNOUT_SPOOL": str(site.folder / name)}


def measured(router: Router, name: str, **labels: str) -> float:
    """Return one number of those that a router exports."""
    text = httpx.get(f"{router.url}/metrics").raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    [value] = [sample.value for sample in samples if sample.name == name and sample.labels == labels]
    return value


def decide(router: Router, book: Book, units: Sequence[str]) -> list[str]:
    """Return the ids of decisions made at one router, acknowledged in the book."""

    async def predict() -> list[dict[str, object]]:
        async with AsyncTurnout(router.url, connections=CLIENTS, timeout_s=60) as http:
            asked = (http.predict("delay", unit=unit, inputs=inputs(number)) for number, unit in enumerate(units))
            return await asyncio.gather(*asked)

    ids = []
    for unit, reply in zip(units, asyncio.run(predict()), strict=True):
        ids.append(str(reply["decision_id"]))
        book.decisions[ids[-1]], book.units[ids[-1]] = reply, unit
    return ids


@in_postgresql
def test_one_of_two_is_cut_off(site: Site, tally: Tally) -> None:
    book = Book()
    with site.lines(2) as lines:
        cut_off, other = (site.ready(line=line, settings=machine(site, f"m{n}")) for n, line in enumerate(lines))
        create_experiment_on([cut_off, other])
        traffic = Traffic([cut_off.url, other.url], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(100)
            with site.away(lines[0]):
                until(lambda: cut_off.health() == "degraded")
                traffic.wait_for(200)
                early = Book()
                rows = list(chain(*map(outcomes_of, decide(cut_off, early, [f"early{n}" for n in range(100)]))))
                with Turnout(other.url) as client:
                    receipts = client.outcomes([row.row() for row in rows])
                spooled = measured(cut_off, "turnout_spool_jobs")
                assert (cut_off.health(), other.health()) == ("degraded", "ready")
            back_s = until(lambda: cut_off.health() == "ready")
            traffic.wait_for(100)
        book.decisions |= early.decisions
        book.units |= early.units
        book.outcomes |= set(rows)
        found = site.audit(book, [cut_off, other])
    tally(
        f"{len(book.failed_predictions())} predictions failed, {receipts['accepted']} of {len(rows)} outcomes of "
        f"{len(early.decisions)} spooled decisions accepted by the other one, all {spooled:.0f} spooled jobs drained "
        f"{back_s:.1f} s after the line was back, {found}"
    )
    assert receipts["accepted"] == len(rows)
    assert spooled >= len(early.decisions)
    assert book.failed_predictions() == []
    found.assert_clean()


def changes(client: Turnout) -> Iterator[tuple[str, str, object]]:
    """Make one change after the other, and yield what it is and by which field of a reply to know that it is served."""
    for epoch in range(2, 8):
        current = client.experiment("four")
        document = current["document"]
        names = [arm["name"] for arm in document["arms"]]
        weights = dict(zip(names, (0.4, 0.3, 0.2, 0.1) if epoch % 2 else (0.1, 0.2, 0.3, 0.4), strict=True))
        client.replace_experiment(document | {"allocation": {"kind": "split", "weights": weights}}, current["revision"])
        yield f"weights {epoch}", "epoch", epoch
    client.conclude("four")
    yield "conclusion", "experiment", None
    client.replace_endpoint({"name": "delay", "champion": "forest@1"}, client.endpoint("delay")["revision"])
    yield "champion", "model", "forest@1"
    second = document | {"name": "second", "allocation": {"kind": "split", "weights": weights}}
    client.create_experiment(second)
    client.start("second")
    yield "start", "experiment", "second"


def test_a_change_at_one_is_served_by_the_other_within_two_seconds(site: Site, tally: Tally) -> None:
    told, follower = (site.ready(settings=machine(site, f"m{n}")) for n in range(2))
    create_experiment_on([told, follower])
    counted = "turnout_control_propagation_seconds"
    before = measured(follower, f"{counted}_count")
    took_s: dict[str, float] = {}
    with Turnout(told.url) as client, Turnout(follower.url) as asking:
        making = changes(client)
        while True:
            # From before the change is asked for, so that it cannot seem quicker than it was.
            began_s = time.monotonic()
            change = next(making, None)
            if change is None:
                break
            name, field, value = change
            until(lambda: asking.predict("delay", unit="u", inputs=inputs(1))[field] == value, 10)  # noqa: B023
            took_s[name] = time.monotonic() - began_s
    count, slowest = measured(follower, f"{counted}_count"), max(took_s, key=took_s.__getitem__)
    within, total_s = measured(follower, f"{counted}_bucket", le="2.0"), measured(follower, f"{counted}_sum")
    tally(
        f"{len(took_s)} changes served by the other one, slowest {took_s[slowest]:.2f} s ({slowest}), "
        f"its metric: {count:.0f} in {total_s / count:.2f} s on average, {count - within:.0f} over {PROMISED_S:g} s"
    )
    assert took_s[slowest] < PROMISED_S, took_s
    assert count - before >= len(took_s)
    assert within == count


def lists_of(rows: Sequence[Outcome], rng: random.Random) -> Iterator[list[Outcome]]:
    """Yield the rows in another order, in lists of one to two hundred."""
    shuffled = rng.sample(rows, len(rows))
    while shuffled:
        size = rng.randint(1, 200)
        yield shuffled[:size]
        shuffled = shuffled[size:]


async def post_at_once(
    routers: Sequence[Router], lists: Sequence[Sequence[Outcome]], rng: random.Random
) -> Counter[str]:
    """Post the lists from eight clients, each to either router, and return what the receipts say."""
    waiting, receipts = iter(lists), Counter[str]()

    async def client(clients: Sequence[AsyncTurnout]) -> None:
        for rows in waiting:
            answer = await rng.choice(clients).outcomes([row.row() for row in rows])
            receipts.update({status: answer[status] for status in ("accepted", "duplicate", "rejected")})

    async with (
        AsyncTurnout(routers[0].url, timeout_s=60) as first,
        AsyncTurnout(routers[1].url, timeout_s=60) as second,
    ):
        await asyncio.gather(*(client([first, second]) for _ in range(CLIENTS)))
    return receipts


@in_postgresql
def test_a_batch_posted_twenty_times_counts_once_though_half_its_decisions_come_later(site: Site, tally: Tally) -> None:
    book, seed = Book(), random.randrange(1000)
    rng = random.Random(seed)
    with site.lines(1) as [line]:
        # Two that never give a commit up: an answer from a spool could not know whether another router had counted.
        patient = {"TURNOUT_LEDGER_TIMEOUT_S": "60"}
        posted_to = [site.ready(settings=machine(site, name) | patient) for name in ("m0", "m1")]
        cut_off = site.ready(line=line, settings=machine(site, "m2"))
        create_experiment_on([*posted_to, cut_off])
        half = BATCH // 2
        stored = decide(posted_to[0], book, [f"stored{n}" for n in range(half)])
        with site.away(line):
            spooled = decide(cut_off, book, [f"spooled{n}" for n in range(half)])
            rows = [row for ids in (stored, spooled) for row in list(chain(*map(outcomes_of, ids)))[:half]]
            lists = [part for _ in range(TIMES) for part in lists_of(rows, rng)]
            receipts = asyncio.run(post_at_once(posted_to, rng.sample(lists, len(lists)), rng))
            waiting = measured(cut_off, "turnout_spool_jobs")
        book.outcomes |= set(rows)
        found = site.audit(book, [*posted_to, cut_off])
    tally(
        f"{BATCH} outcomes posted {TIMES} times in {len(lists)} lists by {CLIENTS} clients to 2 routers (seed {seed}), "
        f"half before their decision, {dict(receipts)}, {found}"
    )
    assert waiting >= half
    assert receipts == {"accepted": BATCH, "duplicate": (TIMES - 1) * BATCH, "rejected": 0}
    found.assert_clean()
