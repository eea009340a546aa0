"""Confidence sequences of reports: the engine's sums against the same made decision by decision."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from analysis.periods import Periods
from analysis.report import Report, load
from analysis.sequential import cells_of, pair_of
from analysis.statistics import effects
from analysis.statistics.adaptive import linearised, scores
from analysis.statistics.cells import Cells, Visits
from router.assignment.epochs import HOLDOUT
from router.decision_id import FORCED
from tests.analysis.ledgers import CLICK, DAY_MS, START_MS, Ledger, everything, flights
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
NOW_MS = START_MS + int(1.2 * DAY_MS)
HELD_OUT = {1: 0.1, 2: 0.2}


class Row(NamedTuple):
    """A decision: its period, arm, unit, weight, and what was observed of it."""

    period: int
    arm: int
    unit: str
    weight: float
    numerator: float
    denominator: float


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """Three arms with traffic and one without, shares and holdouts that change, units that return, lists of inputs."""
    return everything()


@pytest.fixture(scope="module")
def report(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of its largest experiment."""
    return load(NAME, ledger.write_sqlite(tmp_path_factory.mktemp("sequences") / "turnout.db"), now_ms=NOW_MS)


def rows_of(ledger: Ledger, metric: str) -> Iterator[Row]:
    decisions = [
        row
        for row in ledger.decisions
        if row["experiment_id"] == 1
        and row["epoch"] != FORCED
        and row["arm"] != HOLDOUT
        and row["decided_ms"] <= NOW_MS
    ]
    times = [row["decided_ms"] for row in decisions]
    periods = Periods(min(times), max(times))
    said: dict[bytes, list[dict[str, Any]]] = {}
    for row in ledger.standing(NOW_MS):
        said.setdefault(row["decision_id"], []).append(row)
    for row in decisions:
        if metric == "click" and row["decided_ms"] + 3_600_000 > NOW_MS:
            continue
        values = brier(said.get(row["id"], [])) if metric == "brier" else clicks(row, said.get(row["id"], []))
        weight = (1 - HELD_OUT[row["epoch"]]) / row["propensity"]
        yield Row(periods.number(row["decided_ms"]), row["arm"], row["unit"], weight, *values)


def brier(said: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    by_item: dict[int, list[float]] = {}
    for row in said:
        if row["metric"] == "late":
            by_item.setdefault(row["item"], []).append((row["prediction"] - row["value"]) ** 2)
    return sum(float(np.mean(each)) for each in by_item.values()), float(len(by_item))


def clicks(decision: Mapping[str, Any], said: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    in_time = [row for row in said if row["occurred_ms"] <= decision["decided_ms"] + 3_600_000]
    clicked = {row["item"] for row in in_time if row["metric"] == "click" and row["value"] > 0}
    return float(len(clicked)), decision["predictions"].count(",") + 1.0


def by_hand(rows: Sequence[Row], arms: tuple[int, int]) -> tuple[Cells, Visits]:
    """Return the cells of two arms and the visits, with a row per decision."""
    numbers = sorted({row.period for row in rows})
    units = sorted({row.unit for row in rows})
    cells = Cells(np.zeros(len(numbers)), *(np.zeros((len(numbers), 2, *shape)) for shape in _SHAPES))
    visits: list[tuple[Any, ...]] = []
    for row in rows:
        period, y = numbers.index(row.period), np.array([row.numerator, row.denominator])
        cells.decisions[period] += 1
        weight, weighted = np.zeros(2), np.zeros((2, 2))
        if row.arm in arms:
            arm, w = arms.index(row.arm), row.weight
            weight[arm], weighted[arm] = w, w * y
            square = np.outer(y, y)
            sums = (1.0, y, square, w, w * y, w * w, w * w * y, w * w * square)
            for table, value in zip(cells[1:], sums, strict=True):
                table[period, arm] += value
        visits.append((units.index(row.unit), period, 1.0, weight, weighted))
    unit, period_, count, weights, weighteds = zip(*visits, strict=True)
    return cells, Visits(np.array(unit), np.array(period_), np.array(count), np.array(weights), np.array(weighteds))


_SHAPES: tuple[tuple[int, ...], ...] = ((), (2,), (2, 2), (), (2,), (), (2,), (2, 2))


@pytest.mark.parametrize("metric", ["brier", "click"])
@pytest.mark.parametrize("arm", [1, 2])
def test_sequences_are_those_of_the_decisions_one_by_one(ledger: Ledger, report: Report, metric: str, arm: int) -> None:
    rows = list(rows_of(ledger, metric))
    found = linearised(scores(*by_hand(rows, (0, arm))))
    alpha = 1 - report.confidence
    expected = effects.contrast(found, 1, 0, 10_000, alpha)
    looks = report.looks(report.experiment.metric(metric))[arm]
    assert looks.decisions[-1] == len(rows)
    for mine, theirs in (
        (looks.difference, expected),
        (looks.lift, effects.lift(found, 1, 0, 10_000, alpha)),
        (looks.treatment, effects.mean(found, 1, 10_000, alpha)),
    ):
        assert np.isfinite(theirs.value[-1])
        assert mine.value == pytest.approx(theirs.value, rel=1e-9, nan_ok=True)
        assert mine.interval.low == pytest.approx(theirs.interval.low, rel=1e-9, nan_ok=True)
        assert mine.interval.high == pytest.approx(theirs.interval.high, rel=1e-9, nan_ok=True)
    assert looks.log_e_values == pytest.approx(effects.log_evidence(found, 1, 0, 10_000, alpha=alpha), rel=1e-9)


def test_contrast_has_a_row_per_look_with_an_interval(report: Report) -> None:
    looks = report.contrast("brier", "boosting")
    assert looks["difference_low"].notna().all()
    assert looks["time"].is_monotonic_increasing
    assert looks["decisions"].is_monotonic_increasing
    assert looks["p_value"].is_monotonic_decreasing
    last, effect = looks.iloc[-1], report.looks(report.experiment.primary)[1].last
    assert effect is not None
    assert list(last[list(effect._fields)]) == pytest.approx(list(effect))


def test_an_arm_without_traffic_beside_the_control_has_no_looks(report: Report) -> None:
    assert report.contrast("brier", "idle").empty
    assert 3 not in report.looks(report.experiment.primary)


def test_an_arm_that_came_later_is_compared_in_its_own_time(tmp_path: Path) -> None:
    ledger, chance = Ledger(), np.random.default_rng(4)
    experiment = ledger.add_experiment(
        [{**CLICK, "default": None}],
        arms=("control", "early", "late"),
        epochs=((0.5, 0.5, 0.0), (0.4, 0.2, 0.4)),
        randomise="request",
    )
    for number in range(3000):
        epoch = 1 + number // 1500
        arm = int(chance.choice(3, p=((0.5, 0.5, 0.0), (0.4, 0.2, 0.4))[epoch - 1]))
        key = ledger.decide(experiment, arm, f"u{number}", START_MS + 1000 * number, epoch=epoch)
        # In the first half everybody clicks more: an arm that was not there must not be blamed for it.
        ledger.observe(key, "click", float(chance.random() < (0.8 if epoch == 1 else 0.3)))
    loaded = load(NAME, ledger.write_sqlite(tmp_path / "turnout.db"), now_ms=START_MS + DAY_MS)
    early, late = (loaded.looks(loaded.experiment.primary)[arm] for arm in (1, 2))
    assert (early.decisions[-1], late.decisions[-1]) == (3000, 1500)
    assert late.difference.interval.low[-1] < 0 < late.difference.interval.high[-1]
    assert late.treatment.value[-1] == pytest.approx(0.3, abs=0.08)
    assert early.treatment.value[-1] == pytest.approx(0.55, abs=0.08)


def test_planned_size_decides_where_intervals_are_narrow(tmp_path: Path) -> None:
    widths = []
    for planned in (400, 400_000):
        ledger = flights(400)
        ledger.experiments[0]["document"] = ledger.experiments[0]["document"].replace(
            '"planned_decisions": 400', f'"planned_decisions": {planned}'
        )
        row = load(NAME, ledger.write_sqlite(tmp_path / f"{planned}.db"), now_ms=START_MS + 3 * DAY_MS).results[1]
        widths.append(row.difference_high - row.difference_low)
    assert widths[0] < 0.7 * widths[1]


def test_before_both_arms_have_a_pilot_there_is_no_interval(tmp_path: Path) -> None:
    loaded = load(NAME, flights(70).write_sqlite(tmp_path / "turnout.db"), now_ms=START_MS + 3 * DAY_MS)
    assert loaded.contrast().empty or loaded.contrast()["decisions"].min() > 60
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER])
    for number in range(80):
        key = ledger.decide(experiment, number % 2, f"u{number}", START_MS, predictions=[0.1 + number / 100])
        ledger.observe(key, "late", float(number % 3 == 0), label=True)
    at_once = load(NAME, ledger.write_sqlite(tmp_path / "once.db"), now_ms=START_MS + DAY_MS)
    assert at_once.verdict().summary == (
        "not enough evidence: the first 30 decisions of control and of boosting only set the scale; too few came after "
        "them"
    )


def test_cells_keep_the_decisions_of_all_arms() -> None:
    decided = [
        {"period": 7, "arm": arm, "decisions": 10 * (arm + 1), "weights": 1.0, "squared_weights": 2.0}
        for arm in range(3)
    ]
    numbers, cells = cells_of(decided, [], (0, 1, 2))
    pair = pair_of(cells, 2)
    assert (numbers.tolist(), pair.decisions.tolist(), pair.counts.tolist()) == ([7], [60.0], [[10.0, 30.0]])
