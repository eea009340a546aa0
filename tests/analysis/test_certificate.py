"""Certificates: replays keep what the experiment had, and are read as its report is."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from analysis import queries, replays
from analysis.certificate import Certificate
from analysis.commands import report
from analysis.errors import UnknownMetric
from analysis.periods import Periods
from analysis.report import load
from analysis.sequential import Setup
from analysis.source import open_source
from analysis.statistics import effects, replay
from analysis.statistics.adaptive import linearised
from analysis.statistics.cells import cells_of
from analysis.statistics.replay import Bandit, Clock, Known
from analysis.statistics.thompson import probabilities
from router.allocation.evidence import fold
from router.allocation.tables import live_counts
from router.documents import BinaryMetric, NumericMetric, Thompson
from tests.analysis.ledgers import CLICK, MINUTE_MS, START_MS, Ledger, everything, flights
from tests.analysis.test_allocations import interleaved
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
RUNS = 40


def certificate(
    ledger: Ledger, folder: Path, metric: str | None = None, runs: int = RUNS, seed: int = 1
) -> Certificate:
    return load(NAME, ledger.write_sqlite(folder / f"turnout{seed}.db")).certificate(metric, runs=runs, seed=seed)


def traffic(
    decisions: int,
    *,
    metric: Mapping[str, Any] = CLICK,
    floor: float | None = None,
    units: int | None = None,
    epochs: int = 1,
    **more: Any,
) -> Ledger:
    """Decisions of two arms, a second apart: with a floor of a bandit, else of a split; the second arm is better."""
    ledger, chance = Ledger(), np.random.default_rng(3)
    bandit = {"kind": "thompson", "metric": metric["name"], "floor": floor, "min_matured": 30, **more}
    experiment = ledger.add_experiment(
        [metric],
        epochs=[(0.5, 0.5)] * epochs,
        randomise="unit" if floor is None else "request",
        allocation=None if floor is None else bandit,
        planned=decisions,
    )
    length = decisions // epochs
    for number, epoch in enumerate(ledger.epochs):
        epoch["published_ms"] = START_MS + number * length * 1000
    ones = chance.random(units or decisions) < 0.3
    for number in range(decisions):
        unit = number if units is None else int(chance.integers(units))
        arm = int(chance.integers(2)) if units is None else unit % 2
        key = ledger.decide(
            experiment, arm, f"u{unit}", START_MS + number * 1000, epoch=min(number // length + 1, epochs)
        )
        value = float(ones[unit] or (arm and number % 5 == 0))
        ledger.observe(key, str(metric["name"]), value)
    return ledger


def test_units_with_equally_many_decisions_exchange_all_of_their_outcomes_in_order() -> None:
    units = np.array([0, 1, 0, 2, 3, 1, 4, 2])
    found = replay.permutations(units, 50, np.random.default_rng(1))
    for run in found:
        assert sorted(run) == [*range(8)]
        for unit in range(5):
            mine = run[units == unit]
            assert len({*units[mine]}) == 1
            assert len(mine) == np.sum(units == units[mine[0]])
            assert (np.diff(mine) > 0).all()
    assert {*found[:, 0]} == {0, 1, 3}
    assert {*found[:, 4]} == {4, 6}


def test_as_few_units_move_as_shares_do_and_arms_without_a_share_get_none() -> None:
    units = np.repeat(np.arange(5_000), 2)
    at = replay.places(units, len(units), 2, np.random.default_rng(1))
    tables = np.tile([0, 1], 5_000)
    drawn = replay.replay_split(tables, np.array([[0.5, 0.5, 0.0], [0.6, 0.4, 0.0]]), at)
    first, second = drawn.arms[:, ::2], drawn.arms[:, 1::2]
    assert not (drawn.arms == 2).any()
    assert not ((first == 0) & (second == 1)).any()
    assert (first != second).mean() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 10_000))
    assert {*np.round(drawn.weights(tables)[0, ::2], 9)} == {2.0}
    assert (drawn.weights(tables) == np.where(tables == 0, 2.0, np.where(drawn.arms == 0, 1 / 0.6, 2.5))).all()


METRICS = [
    BinaryMetric(name="click", direction="increase", default=0, window_s=240),
    NumericMetric(name="click", direction="decrease"),
]
ALLOCATIONS = [
    Thompson(metric="click", floor=0.05, min_matured=10),
    Thompson(metric="click", floor=0.0, min_matured=0, control_share=0.2, top_two=True, half_life_s=300),
    Thompson(metric="click", floor=0.01, min_matured=5, half_life_s=600, window_s=480),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_replayed_bandits_have_the_shares_that_the_router_would_publish(
    metric: BinaryMetric | NumericMetric, allocation: Thompson
) -> None:
    chance, size, length = np.random.default_rng(2), 400, 5
    start = 1_000 * MINUTE_MS
    # In the middle of minutes, as the router discounts them.
    decided = np.sort(chance.integers(0, 20, size)).astype(np.float64) * MINUTE_MS + MINUTE_MS / 2 + start
    published = start + length * MINUTE_MS * np.arange(5.0)
    values = (chance.random(size) < 0.3).astype(np.float64)
    delays = 1000 * chance.integers(1, 8 * 60, size).astype(np.float64)
    if isinstance(metric, BinaryMetric):
        delays = np.full(size, MINUTE_MS / 2 + 1000.0 * metric.window_s)
    seconds = [math.inf if each is None else 1000 * each for each in (allocation.half_life_s, allocation.window_s)]
    kind = "binary" if isinstance(metric, BinaryMetric) else "numeric"
    clock = Clock(decided, np.searchsorted(published, decided, side="right") - 1, published, np.array([[True] * 3] * 5))
    known = Known(np.stack([np.ones(size), values, values**2], axis=-1), delays)
    sources = replay.permutations(np.arange(size), 2, chance)
    bandit = Bandit(allocation, kind, metric.direction, *seconds)
    drawn = replay.replay_bandit(bandit, clock, known, sources, chance.random((2, size)))
    for run in range(2):
        value, known_ms = values[sources[run]], decided + delays[sources[run]]
        for table, now_ms in enumerate(published.tolist()):
            made, seen = decided < now_ms, known_ms <= now_ms
            rows = [
                (int(arm), int(at // MINUTE_MS), 1, 1, y, y)
                for arm, at, y in zip(drawn.arms[run, seen], decided[seen], value[seen], strict=True)
            ]
            items = [
                (int(arm), int(at // MINUTE_MS), 1, 1.0)
                for arm, at in zip(drawn.arms[run, made], decided[made], strict=True)
            ]
            evidence = fold(rows, items, arms=(0, 1, 2), metric=metric, allocation=allocation, now_ms=int(now_ms))
            shares = probabilities(allocation, kind, metric.direction, evidence)
            counts = live_counts(0.0, dict(enumerate(shares)), 3)
            assert drawn.shares[run, table].tolist() == pytest.approx(
                [counts[arm] / 10_000 for arm in range(3)], abs=1e-12
            )


def test_sums_of_decisions_are_those_of_their_cells() -> None:
    chance = np.random.default_rng(4)
    looks, arms = np.sort(chance.integers(0, 6, 500)), chance.integers(0, 2, (3, 500))
    values = np.stack([chance.normal(size=(3, 500)), np.ones((3, 500))], axis=-1)
    found = replay.decision_cells(looks, arms, np.where(arms == 0, 1 / 0.3, 1 / 0.7), values, (6, 2))
    mine = (looks == np.arange(6)[:, np.newaxis])[np.newaxis, :, np.newaxis] & (
        arms[:, np.newaxis, np.newaxis] == [[0], [1]]
    )
    totals = np.einsum("rlad,rdv->rlav", mine, values)
    products = np.einsum("rlad,rdv,rdw->rlavw", mine, values, values)
    expected = cells_of([0.3, 0.7], mine.sum(axis=-1), totals, products)
    for first, second in zip(found, expected, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-12)


def test_units_that_come_once_are_the_same_as_decisions() -> None:
    chance = np.random.default_rng(5)
    looks, arms = np.sort(chance.integers(0, 8, 600)), chance.integers(0, 2, (2, 600))
    values = np.stack([chance.normal(size=(2, 600)), np.ones((2, 600))], axis=-1)
    weights = np.full(arms.shape, 2.0)
    cells = replay.decision_cells(looks, arms, weights, values, (8, 2))
    visits = [replay.visits_of(np.arange(600), looks, *each, 2) for each in zip(arms, weights, values, strict=True)]
    by_decision, by_unit = replay.scores_of(cells), replay.scores_of(cells, visits)
    np.testing.assert_allclose(by_unit.totals, by_decision.totals, rtol=1e-9)
    np.testing.assert_allclose(by_unit.products, by_decision.products, rtol=1e-9, atol=1e-9)
    assert by_unit.started.any()


def test_t_test_is_that_of_the_values_so_far() -> None:
    chance = np.random.default_rng(6)
    arms, looks = chance.integers(0, 2, (1, 3_000)), np.repeat([0, 1, 2], [20, 980, 2_000])
    values = np.stack([chance.normal(arms[0] * 0.1, 1, (1, 3_000)), np.ones((1, 3_000))], axis=-1)
    cells = replay.decision_cells(looks, arms, np.ones(arms.shape), values, (3, 2))
    difference, means = replay.t_intervals(cells, 0.1)
    assert np.isinf([difference.low[0, 0], means[0].high[0, 0]]).all()
    for look, size in ((1, 1_000), (2, 3_000)):
        first, second = (values[0, :size, 0][arms[0, :size] == arm] for arm in (0, 1))
        expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.9)
        assert (difference.low[0, look], difference.high[0, look]) == pytest.approx(tuple(expected), abs=2e-4)
        expected = stats.ttest_1samp(first, 0).confidence_interval(0.9)
        assert (means[0].low[0, look], means[0].high[0, look]) == pytest.approx(tuple(expected), abs=2e-4)


def test_report_that_found_a_difference_is_rarely_wrong_without_one(tmp_path: Path) -> None:
    ledger = flights(500)
    loaded = load(NAME, ledger.write_sqlite(tmp_path / "turnout.db"))
    assert loaded.contrast()["difference_high"].iloc[-1] < 0
    found = loaded.certificate(runs=RUNS)
    assert found.false_positive_percent <= 5 + 3 * 100 * math.sqrt(0.05 * 0.95 / RUNS)
    assert found.t_test_false_positive_percent > 15
    assert (found.runs, found.decisions, found.part, found.promised_percent) == (RUNS, 500, 1, 5)
    assert found.frame()["arm"].tolist() == ["control", "boosting"]
    control, boosting = found.arms
    assert boosting.difference_coverage_percent == 100 - found.false_positive_percent
    assert boosting.t_test_difference_coverage_percent == pytest.approx(100 - found.t_test_false_positive_percent)
    assert min(control.mean_coverage_percent, boosting.mean_coverage_percent) > 85
    last = loaded.contrast().iloc[-1]
    # Of the mixture of both arms, which is more spread out than either.
    assert 1 < boosting.difference_width / (last["difference_high"] - last["difference_low"]) < 2
    assert f"excluded 0 at any of {found.looks} looks in {found.false_positive_percent:.1f} %" in found.summary
    assert found.looks == len(loaded.looks(loaded.experiment.primary)[1].ends_ms)
    first, second, third = (loaded.certificate(runs=5, seed=seed).arms[1].difference_width for seed in (1, 1, 2))
    assert first == second != third


def test_decisions_with_their_own_arms_are_read_as_the_report_reads_them(tmp_path: Path) -> None:
    url = flights(300).write_sqlite(tmp_path / "turnout.db")
    loaded = load(NAME, url)
    metric = loaded.experiment.primary
    log = queries.log_of(open_source(url), loaded.experiment, loaded.now_ms)
    periods = Periods(START_MS, int(loaded.last_decision.timestamp() * 1000))
    setup = Setup(loaded.experiment, log, periods, units_return=False, confidence=0.95)
    rows = replays.Mechanism(open_source(url), setup, metric).rows
    looks = np.unique(rows.periods, return_inverse=True)[1]
    arms, weights = np.arange(300)[np.newaxis] % 2, np.full((1, 300), 2.0)
    cells = replay.decision_cells(looks, arms, weights, rows.values[np.newaxis], (int(looks.max()) + 1, 2))
    found = effects.contrast(linearised(replay.scores_of(cells)), 1, 0, 300)
    expected = loaded.looks(metric)[1].difference
    np.testing.assert_allclose(found.value[0], expected.value, rtol=1e-9)
    np.testing.assert_allclose(found.interval.low[0], expected.interval.low, rtol=1e-9)
    assert np.isfinite(expected.value).sum() > 50


def test_every_source_has_the_same_certificate(tmp_path: Path) -> None:
    ledger = everything()
    now_ms = START_MS + 3_000 * MINUTE_MS
    first, second = (
        load(NAME, source, now_ms=now_ms).certificate("basket", runs=3)
        for source in (ledger.write_sqlite(tmp_path / "turnout.db"), ledger.write_lake(tmp_path / "lake"))
    )
    assert [arm.arm for arm in first.arms] == ["control", "boosting", "forest"]
    assert [first[:-2], *map(list, first.arms)] == [
        pytest.approx(each, nan_ok=True) for each in ([*second[:-2]], *second.arms)
    ]


def test_units_that_return_stay_alike(tmp_path: Path) -> None:
    ledger = traffic(900, units=90)
    found = certificate(ledger, tmp_path, runs=40)
    assert found.false_positive_percent <= 5 + 3 * 100 * math.sqrt(0.05 * 0.95 / 40)
    # Ten decisions of one unit are taken for ten units.
    assert found.t_test_false_positive_percent > 50


def test_bandits_are_replayed_and_those_with_a_low_floor_by_betting(tmp_path: Path) -> None:
    metric = {**CLICK, "window_s": 60}
    usual = certificate(traffic(900, metric=metric, floor=0.05, epochs=9), tmp_path, runs=40)
    assert usual.false_positive_percent <= 5 + 3 * 100 * math.sqrt(0.05 * 0.95 / 40)
    assert usual.arms[1].difference_width > 0
    low = certificate(traffic(900, metric=metric, floor=0.0, epochs=9), tmp_path, runs=40, seed=2)
    assert low.false_positive_percent <= 5 + 3 * 100 * math.sqrt(0.05 * 0.95 / 40)
    assert math.isnan(low.arms[1].difference_width)
    assert low.t_test_false_positive_percent > low.false_positive_percent


def test_large_experiments_are_replayed_with_a_part_of_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MOST_DECISIONS", 300)
    found = certificate(flights(400), tmp_path, runs=10)
    assert (found.part, found.decisions) == (2, 200)
    assert "and 1 in 2 of its units" in found.summary


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownMetric, match="interleaves rankings"):
        certificate(interleaved(), tmp_path)
    ledger = Ledger()
    ledger.add_experiment([BRIER], randomise="request", allocation={"kind": "contextual", "metric": "brier"})
    with pytest.raises(UnknownMetric, match=r"had shares of its own.*`turnout simulate`"):
        certificate(ledger, tmp_path, seed=2)


def test_without_evidence_there_is_no_certificate(tmp_path: Path) -> None:
    few = certificate(flights(50), tmp_path, runs=5)
    assert few.summary == (
        "not enough evidence: no replay had an interval of brier, which takes 30 decisions of each arm, and more"
    )
    assert math.isnan(few.false_positive_percent)
    assert few.arms == ()
    silent = flights(50)
    silent.outcomes.clear()
    assert certificate(silent, tmp_path, seed=2).reason == "nothing was observed of brier"


def test_command_prints_the_certificate(tmp_path: Path) -> None:
    url = flights(80).write_sqlite(tmp_path / "turnout.db")
    ran = CliRunner().invoke(report, [NAME, "--source", url, "--certify"])
    assert ran.exit_code == 0
    said = " ".join(ran.stdout.split())
    assert "certificate: in 200 replays of this experiment without any difference, its intervals of brier" in said
    as_json = CliRunner().invoke(report, [NAME, "--source", url, "--json", "--certify"])
    assert json.loads(as_json.stdout)["certificate"]["summary"] in said
