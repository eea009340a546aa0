import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tea_tasting.aggr import Aggregates

from analysis.adjusted import Adjusted, compare_adjusted
from analysis.errors import InvalidPeriod, UnknownMetric
from analysis.experiment import read_experiment
from analysis.fixed_horizon import PAST, Sample, adjust, compare, read_samples, sample_of, standard_error
from analysis.queries import log_of, observations, per_unit
from analysis.report import load
from analysis.source import Source, open_source
from analysis.split_check import SplitCheck
from router.decision_id import FORCED
from router.ledger.database import open_database
from router.ledger.folding import Folder
from router.ledger.records import Observation
from tests.analysis.ledgers import CLICK, DAY_MS, MINUTE_MS, RATIO, REVENUE, START_MS, Ledger
from tests.analysis.sources import in_sqlite, opened
from tests.metrics import BRIER

Floats = NDArray[np.float64]

NAME = "boosting-vs-logistic"
NOW_MS = START_MS + DAY_MS
METRICS: list[dict[str, Any]] = [
    REVENUE | {"winsorise": {"high": 25}},
    CLICK | {"role": "secondary"},
    RATIO | {"role": "secondary"},
    BRIER | {"role": "secondary"},
]
UNITS = 160


def _ledger(**changes: Any) -> Ledger:
    """Units with tastes of their own, of which three in four came before the experiment too, some several times."""
    generator, ledger = np.random.default_rng(3), Ledger()
    number = ledger.add_experiment(METRICS, **changes)
    tastes = generator.gamma(3.0, 2.0, UNITS)
    for unit in range(UNITS):
        for visit in range(int(generator.integers(0, 4))):
            _visit(ledger, generator, None, unit, tastes[unit], START_MS - (1 + 3 * visit) * DAY_MS + unit)
        for visit in range(int(generator.integers(1, 4))):
            _visit(ledger, generator, number, unit, tastes[unit], START_MS + visit * MINUTE_MS + unit)
    return ledger


def _visit(
    ledger: Ledger, generator: np.random.Generator, experiment: int | None, unit: int, taste: float, at_ms: int
) -> None:
    arm = None if experiment is None else unit % 2
    predictions = [round(float(each), 4) for each in generator.uniform(size=generator.choice([1, 1, 2]))]
    epoch = None if experiment is None else 1
    key = ledger.decide(experiment, arm, f"u{unit}", at_ms, predictions=predictions, epoch=epoch)
    for item in range(len(predictions)):
        ledger.observe(key, "revenue", taste + generator.gamma(2.0) + 0.3 * (arm or 0), item=item)
        ledger.observe(key, "visit", 1.0, item=item)
        ledger.observe(key, "value", taste * generator.uniform(0.5, 1.5), item=item)
        if generator.uniform() < taste / 12:
            ledger.observe(key, "click", 1.0, item=item)
        # The ledger copies what was predicted to a label only where an experiment scores it.
        late = float(generator.uniform() < predictions[item])
        ledger.observe(key, "late", late, item=item, label=experiment is not None)


def _sums(ledger: Ledger, metric: str, *, past: bool, single: bool = False) -> dict[str, tuple[float, float]]:
    """Numerator and denominator per unit in plain Python; `single` leaves out what has several items."""
    sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    said = {(row["decision_id"], row["metric"], row["item"]): row["value"] for row in ledger.outcomes}
    for decision in ledger.decisions:
        predictions = json.loads(decision["predictions"])
        if (decision["decided_ms"] < START_MS) != past or (single and len(predictions) > 1):
            continue
        for item, prediction in enumerate(predictions):
            value = {name: said.get((decision["id"], name, item), 0.0) for name in ("revenue", "click", "late")}
            n, d = {
                "revenue": (min(value["revenue"], 25.0), 1.0),
                "click": (value["click"], 1.0),
                "brier": ((prediction - value["late"]) ** 2, 1.0),
                "value-per-visit": tuple(said[decision["id"], name, item] for name in ("value", "visit")),
            }[metric]
            numerator, denominator = sums[decision["unit"]]
            sums[decision["unit"]] = (numerator + n, denominator + d)
    return sums


def _directly(ledger: Ledger, metric: str) -> tuple[float, float, float]:
    """Difference, p-value and fall of the variance: CUPED on the linearised sums of units, with numpy."""
    now = _sums(ledger, metric, past=False)
    past = _sums(ledger, metric, past=True, single=metric == "brier")
    units = sorted(now)
    y, yd = np.array([now[unit] for unit in units]).T
    x, xd = np.array([past.get(unit, (0.0, 0.0)) for unit in units]).T
    arm = np.array([int(unit[1:]) % 2 for unit in units])

    def linear(n: Floats, d: Floats) -> Floats:
        return np.asarray((n - n.sum() / d.sum() * d) / d.mean())

    covariance = np.cov(linear(y, yd), linear(x, xd))
    theta = covariance[0, 1] / covariance[1, 1]
    means, errors, raw, sizes = [], [], [], []
    for each in (0, 1):
        these = [values[arm == each] for values in (y, yd, x, xd)]
        means.append(these[0].sum() / these[1].sum() - theta * (these[2].sum() / these[3].sum() - x.sum() / xd.sum()))
        residual = linear(*these[:2]) - theta * linear(*these[2:])
        sizes.append(len(residual))
        errors.append(residual.var(ddof=1) / len(residual))
        raw.append(linear(*these[:2]).var(ddof=1) / len(residual))
    degrees = sum(errors) ** 2 / sum(error**2 / (size - 1) for error, size in zip(errors, sizes, strict=True))
    difference = means[1] - means[0]
    p_value = 2 * stats.t.sf(abs(difference) / math.sqrt(sum(errors)), degrees)
    return difference, float(p_value), 100 * (1 - sum(errors) / sum(raw))


def _compared(source: Source, metric: str = "revenue", **changes: Any) -> Adjusted:
    experiment = read_experiment(source, NAME)
    log = log_of(source, experiment, NOW_MS)
    (row,) = compare_adjusted(source, log, experiment, experiment.metric(metric), **changes)
    return row


@pytest.mark.parametrize(
    ("engine", "metrics"),
    [
        ("sqlite", ("revenue", "click", "value-per-visit", "brier")),
        ("duckdb", ("revenue", "brier")),
        ("postgresql", ("revenue", "brier")),
    ],
)
def test_every_metric_is_cuped_on_the_sums_of_units(tmp_path: Path, engine: str, metrics: tuple[str, ...]) -> None:
    ledger = _ledger()
    with opened(engine, ledger, tmp_path) as source:
        for metric in metrics:
            found = _compared(source, metric)
            expected = _directly(ledger, metric)
            actual = (found.difference, found.p_value, found.variance_reduction_percent)
            assert actual == pytest.approx(expected, rel=1e-9), metric
            past = _sums(ledger, metric, past=True, single=metric == "brier")
            assert found.units == UNITS
            assert found.units_with_past_percent == pytest.approx(100 * len(past) / UNITS)


def test_one_value_before_and_one_in_the_experiment_is_cuped_as_published(tmp_path: Path) -> None:
    generator, ledger = np.random.default_rng(4), Ledger()
    number, units = ledger.add_experiment([REVENUE]), 400
    x = generator.normal(10.0, 2.0, units)
    y = 0.8 * (x - 10) + generator.normal(10.0, 1.2, units) + 0.4 * (np.arange(units) % 2)
    for unit in range(units):
        ledger.observe(ledger.decide(None, None, f"u{unit}", START_MS - DAY_MS + unit, epoch=None), "revenue", x[unit])
        ledger.observe(ledger.decide(number, unit % 2, f"u{unit}", START_MS + unit), "revenue", y[unit])
    adjusted = y - np.cov(y, x)[0, 1] / x.var(ddof=1) * (x - x.mean())
    welch = stats.ttest_ind(adjusted[1::2], adjusted[::2], equal_var=False)
    source = in_sqlite(ledger, tmp_path)
    found = _compared(source)
    assert found.difference == pytest.approx(adjusted[1::2].mean() - adjusted[::2].mean(), rel=1e-9)
    assert found.p_value == pytest.approx(welch.pvalue, rel=1e-8)
    interval = welch.confidence_interval()
    assert (found.difference_low, found.difference_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    experiment = read_experiment(source, NAME)
    samples = read_samples(source, per_unit(observations(log_of(source, experiment, NOW_MS), experiment.primary)))
    plain = compare(samples[0], samples[1], 0.95)
    assert found.unadjusted_difference == pytest.approx(plain.difference, rel=1e-9)
    widths = [each.difference_high - each.difference_low for each in (found, plain)]
    assert 1 - (widths[0] / widths[1]) ** 2 == pytest.approx(found.variance_reduction_percent / 100, abs=0.01)
    assert found.verdict == "better"


def _sample(columns: Mapping[str, Floats]) -> Sample:
    names = ("numerator", "denominator", *PAST)
    covariance = np.cov([columns[name] for name in names])
    return sample_of(
        Aggregates(
            len(columns["numerator"]),
            {name: float(columns[name].mean()) for name in (*names, "observations")},
            {name: float(covariance[i, i]) for i, name in enumerate(names)},
            {(names[i], names[j]): float(covariance[i, j]) for j in range(4) for i in range(j)},
        )
    )


def _played(generator: np.random.Generator, units: int, effect: float) -> Sample:
    """Units with one to four decisions; a third has no past, and that of the others has the same taste in it."""
    taste, known = generator.normal(5.0, 1.0, units), generator.uniform(size=units) < 2 / 3
    d, xd = generator.integers(1, 5, units).astype(float), known * generator.integers(1, 5, units).astype(float)
    n, xn = ((taste + extra) * size + generator.normal(0, np.sqrt(size)) for extra, size in ((effect, d), (0.0, xd)))
    return _sample({"numerator": n, "denominator": d, "observations": d, PAST[0]: xn, PAST[1]: xd})


def test_variance_falls_and_intervals_cover_as_often_as_they_say() -> None:
    generator, runs, effect = np.random.default_rng(5), 200, 0.2
    found, plain, promised = [], [], []
    for _ in range(runs):
        control, treatment = _played(generator, 80, 0.0), _played(generator, 80, effect)
        adjusted = adjust(control, treatment)
        found.append(compare(*adjusted, 0.9, with_past=True))
        plain.append(compare(control, treatment, 0.9).difference)
        promised.append((standard_error(*adjusted) / standard_error(control, treatment)) ** 2)
        assert found[-1].difference == pytest.approx(adjusted[1].mean - adjusted[0].mean, rel=1e-9)
    covered = np.mean([each.difference_low <= effect <= each.difference_high for each in found])
    assert covered == pytest.approx(0.9, abs=3 * math.sqrt(0.9 * 0.1 / runs))
    differences = [each.difference for each in found]
    assert np.mean(differences) == pytest.approx(effect, abs=3 * float(np.std(differences)) / math.sqrt(runs))
    # The variance over experiments falls to what each of them says that it does, which is also the correlation.
    part = float(np.mean(promised))
    assert part < 0.75
    error = part * 2 * math.sqrt((1 - part) / runs)
    assert np.var(differences) / np.var(plain) == pytest.approx(part, abs=3 * error)


def _with_history(at_ms: int = START_MS - DAY_MS, units: int = 100, **changes: Any) -> Ledger:
    generator, ledger = np.random.default_rng(6), Ledger()
    number = ledger.add_experiment([REVENUE])
    tastes = generator.gamma(3.0, 2.0, units)
    for unit in range(units):
        key = ledger.decide(None, None, f"u{unit}", at_ms + unit, epoch=None)
        ledger.observe(key, "revenue", tastes[unit], **changes)
        key = ledger.decide(number, unit % 2, f"u{unit}", START_MS + unit)
        ledger.observe(key, "revenue", tastes[unit] + generator.normal())
    return ledger


def test_past_is_what_was_known_before_the_first_decision(tmp_path: Path) -> None:
    assert _compared(in_sqlite(_with_history(), tmp_path)).units_with_past_percent == 100


@pytest.mark.parametrize(
    "ledger",
    [
        _with_history(START_MS - 15 * DAY_MS),
        _with_history(START_MS - 15 * DAY_MS, delay_ms=2 * DAY_MS),
        _with_history(delay_ms=2 * DAY_MS),
        _with_history(received_after_ms=2 * DAY_MS),
        _with_history(counted=False),
    ],
    ids=["too long ago", "decided too long ago", "after the first decision", "told after it", "not counted"],
)
def test_what_is_no_past_is_left_out(tmp_path: Path, ledger: Ledger) -> None:
    found = _compared(in_sqlite(ledger, tmp_path))
    assert (found.units, found.units_with_past_percent, found.verdict) == (100, 0, "insufficient")
    assert found.reason == (
        "not enough evidence: 0 units of control and boosting have revenue from the 14 days before the experiment, and "
        "an adjustment needs 30"
    )
    assert math.isnan(found.difference)
    assert math.isnan(found.variance_reduction_percent)


@pytest.mark.parametrize("changes", [{"endpoint": "other"}, {"epoch": FORCED, "experiment_id": 1, "arm": 0}])
def test_decisions_of_other_endpoints_and_forced_ones_are_no_past(tmp_path: Path, changes: dict[str, Any]) -> None:
    ledger = _with_history()
    for row in ledger.decisions:
        row.update(changes if row["decided_ms"] < START_MS else {})
    assert _compared(in_sqlite(ledger, tmp_path)).units_with_past_percent == 0


def test_decisions_of_other_experiments_are_past(tmp_path: Path) -> None:
    ledger = _with_history()
    other = ledger.add_experiment([REVENUE], name="other")
    for row in ledger.decisions:
        row.update({"experiment_id": other, "arm": 1, "epoch": 1} if row["decided_ms"] < START_MS else {})
    assert _compared(in_sqlite(ledger, tmp_path)).units_with_past_percent == 100


def test_past_is_found_as_the_router_records_it(tmp_path: Path) -> None:
    """Outcomes of the champion's decisions: no experiment, and no prediction beside a label."""
    ledger = _ledger()
    said, ledger.outcomes = ledger.outcomes, []
    url = ledger.write_sqlite(tmp_path / "ledger.db")
    engine = open_database(url)
    for is_past, at_ms in ((True, START_MS - 1), (False, START_MS + DAY_MS)):
        rows = [row for row in said if (row["occurred_ms"] < START_MS) == is_past]
        observed = [Observation(**{name: row[name] for name in Observation._fields if name in row}) for row in rows]
        with engine.begin() as connection:
            receipts = Folder().record(connection, observed, at_ms)
        assert {receipt.status for receipt in receipts} == {"accepted"}
    engine.dispose()
    (tmp_path / "as written").mkdir()
    ledger.outcomes = said
    recorded, written = open_source(url), in_sqlite(ledger, tmp_path / "as written")
    for metric in ("revenue", "brier"):
        found = _compared(recorded, metric)
        assert found.units_with_past_percent > 60
        assert found == _compared(written, metric)


def test_past_begins_when_the_caller_says(tmp_path: Path) -> None:
    source = in_sqlite(_with_history(START_MS - 15 * DAY_MS), tmp_path)
    assert _compared(source, days=16).units_with_past_percent == 100
    assert _compared(source, days=16).variance_reduction_percent > 50
    with pytest.raises(InvalidPeriod, match="days is 0; the past needs a positive number of days, such as 14"):
        _compared(source, days=0)


def test_mean_near_zero_is_adjusted_without_a_lift(tmp_path: Path) -> None:
    ledger = _with_history()
    shifted = {row["decision_id"] for row in ledger.outcomes}
    mean = np.mean([row["value"] for row in ledger.outcomes])
    plain = _compared(in_sqlite(ledger, tmp_path))
    for row in ledger.outcomes:
        row["value"] -= mean if row["decision_id"] in shifted else 0.0
    (tmp_path / "near").mkdir()
    found = _compared(in_sqlite(ledger, tmp_path / "near"))
    assert math.isfinite(plain.lift_percent)
    assert math.isnan(found.lift_percent)
    expected = (plain.difference, plain.difference_low, plain.p_value)
    assert (found.difference, found.difference_low, found.p_value) == pytest.approx(expected, rel=1e-6)


def test_past_that_explains_everything_leaves_no_error(tmp_path: Path) -> None:
    ledger = _with_history()
    for before, after in zip(ledger.outcomes[::2], ledger.outcomes[1::2], strict=True):
        after["value"] = 2 * before["value"]
    found = _compared(in_sqlite(ledger, tmp_path))
    assert found.verdict == "insufficient"
    assert "explains revenue entirely" in found.reason


def test_report_has_its_own_level_and_metric(tmp_path: Path) -> None:
    source = _ledger().write_sqlite(tmp_path / "ledger.db")
    (row,) = load(NAME, source, alpha=0.2, now_ms=NOW_MS).adjusted("click", days=3).to_dict("records")
    assert row == _compared(open_source(source), "click", confidence=0.8, days=3)._asdict()


def test_broken_split_is_refused(tmp_path: Path) -> None:
    found = _compared(in_sqlite(_with_history(), tmp_path), split=SplitCheck(1e-6, 10.0, 1e-6))
    assert found.verdict == "insufficient"
    assert "the split is broken" in found.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"randomise": "request"},
        {"allocation": {"kind": "thompson", "metric": "revenue"}},
        {"epochs": ((0.5, 0.5), (0.9, 0.1))},
    ],
    ids=["request", "bandit", "ramp"],
)
def test_units_that_change_their_arm_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    ledger = Ledger()
    ledger.add_experiment([REVENUE], **changes)
    with pytest.raises(UnknownMetric, match="units that keep their arm, and shares that never changed"):
        _compared(in_sqlite(ledger, tmp_path))


def test_experiment_without_decisions_has_no_observations(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add_experiment([REVENUE])
    assert (
        _compared(in_sqlite(ledger, tmp_path)).reason == "not enough evidence: control has no observations of revenue"
    )
