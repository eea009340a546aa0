"""Two routers on one ledger: what one does the other knows, and what one cannot do the other can."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import httpx
import pytest
from sqlalchemy import create_engine, make_url

from router.client import Turnout
from tests.system.conftest import create_experiment_on, until
from tests.system.ledger_audit import clean_fold, stored_statistics
from tests.system.processes import Router
from tests.system.sites import Site
from tests.system.traffic import Book, Outcome, Traffic, inputs

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

Tally = Callable[[object], None]

OUTCOMES, TIMES, CLIENTS = 1000, 20, 8
PROPAGATION_S = 2.0


def test_one_cut_off_from_the_database_serves_on_and_the_other_takes_its_outcomes(own_site: Site, tally: Tally) -> None:
    book = Book()
    with own_site.lines(2) as [line, other_line]:
        assert line is not None
        routers = [own_site.ready(line=line), own_site.ready(line=other_line)]
        create_experiment_on(routers)
        # Half of the requests go to the one that is cut off, and most outcomes to another router than their decision.
        traffic = Traffic([router.url for router in routers], book, pause_s=0.005)
        with traffic.running():
            traffic.wait_for(30)
            line.cut()
            until(lambda: routers[0].health() == "degraded")
            traffic.wait_for(300)
            assert [router.health() for router in routers] == ["degraded", "ready"]
            line.restore()
            until(lambda: routers[0].health() == "ready")
            traffic.wait_for(30)
        found = own_site.audit(book, routers)
    tally(f"{len(book.failed_predictions())} predictions failed, {found}")
    assert book.failed_predictions() == []
    found.assert_clean(keys_shared=False)


def test_a_control_write_reaches_the_other_within_two_seconds(site: Site, tally: Tally) -> None:
    routers = [site.ready(), site.ready()]
    create_experiment_on(routers)
    took_s = []
    with Turnout(routers[0].url) as here, Turnout(routers[1].url) as there:
        for number in range(10):
            record = here.experiment("four")
            first = 0.1 + 0.05 * number
            others = dict.fromkeys(("bayes", "boosting", "forest"), (1.0 - first) / 3)
            weights = {"logistic": first, **others}
            document = {**record["document"], "allocation": {"kind": "split", "weights": weights}}
            epoch = here.replace_experiment(document, record["revision"])["epoch"]
            began_s = time.monotonic()
            until(lambda: there.predict("delay", unit="probe", inputs=inputs(0))["epoch"] == epoch)  # noqa: B023
            took_s.append(time.monotonic() - began_s)
    metrics = httpx.get(f"{routers[1].url}/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in metrics if line.startswith("turnout_control_propagation_seconds"))
    within = float(samples['turnout_control_propagation_seconds_bucket{le="2.0"}'])
    assert within == float(samples["turnout_control_propagation_seconds_count"]) >= len(took_s)
    tally(f"10 control writes, slowest {max(took_s):.2f} s")
    assert max(took_s) < PROPAGATION_S


async def post_many_times(urls: Sequence[str], rows: Sequence[Outcome]) -> Counter[str]:
    """Post the rows so many times from so many clients, each time shuffled and cut into other lists."""
    receipts: Counter[str] = Counter()
    turns = iter(range(TIMES))

    async def client(http: httpx.AsyncClient) -> None:
        for turn in turns:
            rng = random.Random(turn)
            shuffled = rng.sample(rows, len(rows))
            size = rng.choice((1000, 250, 100))
            for start in range(0, len(shuffled), size):
                body = [row.row() for row in shuffled[start : start + size]]
                reply = await http.post(f"{rng.choice(urls)}/v1/outcomes", json=body)
                assert reply.status_code == 200, reply.text
                receipts.update(receipt["status"] for receipt in reply.json()["receipts"])

    async with httpx.AsyncClient(timeout=60) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    return receipts


def decide(router: Router, book: Book, units: range) -> list[str]:
    """Ask for predictions and return the decision ids."""
    with Turnout(router.url) as client:
        replies = [client.predict("delay", unit=f"u{number}", inputs=inputs(number)) for number in units]
    book.decisions |= {reply["decision_id"]: reply for reply in replies}
    return [reply["decision_id"] for reply in replies]


def test_a_batch_posted_twenty_times_counts_as_one_clean_pass(own_site: Site, tally: Tally) -> None:
    book = Book()
    with own_site.lines(1) as [line]:
        assert line is not None
        routers = [own_site.ready(), own_site.ready()]
        cut_off = own_site.ready(line=line)
        create_experiment_on([*routers, cut_off])
        ids = decide(routers[0], book, range(OUTCOMES // 2))
        line.cut()
        ids += decide(cut_off, book, range(OUTCOMES // 2, OUTCOMES))
        assert cut_off.health() == "degraded"
        rng = random.Random(11)
        rows = [Outcome(text, rng.choice(("late", "fee")), "", 0, float(rng.random() < 0.5)) for text in ids]
        receipts = asyncio.run(post_many_times([router.url for router in routers], rows))
        line.restore()
        until(lambda: cut_off.health() == "ready")
    engine = create_engine(make_url(own_site.url))
    with engine.connect() as connection:
        found, expected = stored_statistics(connection), clean_fold(book, rows)
    engine.dispose()
    tally(f"{sum(receipts.values())} outcomes posted: {dict(receipts)}; {len(expected)} statistics as of one pass")
    assert receipts == {"accepted": OUTCOMES, "duplicate": OUTCOMES * (TIMES - 1)}
    assert found.keys() == expected.keys()
    for cell, sums in expected.items():
        assert found[cell] == pytest.approx(sums)
