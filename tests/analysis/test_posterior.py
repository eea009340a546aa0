from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.errors import UnknownMetric
from analysis.report import Report, load
from tests.analysis.ledgers import CLICK, DAY_MS, RATIO, REVENUE, START_MS, Ledger
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
THOMPSON = {"kind": "thompson", "metric": "click"}


def report_of(ledger: Ledger, folder: Path) -> Report:
    return load(NAME, ledger.write_sqlite(folder / "ledger.db"), now_ms=START_MS + DAY_MS)


def clicks(ones: tuple[int, ...], sizes: tuple[int, ...], *, visits: int = 1, **settings: Any) -> Ledger:
    """Arms with so many ones and units; every unit comes so many times and always does the same."""
    ledger = Ledger()
    arms = ("control", "boosting", "forest")[: len(ones)]
    shares = (tuple(1 / len(ones) for _ in ones),)
    experiment = ledger.add_experiment([{**CLICK, "default": None}], arms=arms, epochs=shares, **settings)
    for arm, size in enumerate(sizes):
        for number in range(size):
            for _ in range(visits):
                key = ledger.decide(experiment, arm, f"{arm}-{number}", START_MS + number)
                ledger.observe(key, "click", number < ones[arm])
    return ledger


def test_shares_of_ones_have_beta_posteriors(tmp_path: Path) -> None:
    found = report_of(clicks((30, 45), (100, 100), allocation=THOMPSON), tmp_path).posteriors()
    control, boosting = found.arms
    exact = (stats.beta(31, 71), stats.beta(46, 56))
    for arm, posterior in zip((control, boosting), exact, strict=True):
        assert (arm.low, arm.high) == pytest.approx(posterior.interval(0.95), rel=1e-9)
        assert arm.mean == pytest.approx(posterior.mean())
    draws = [posterior.rvs(400_000, random_state=seed) for seed, posterior in enumerate(exact)]
    best, gap = np.mean(draws[1] > draws[0]), np.mean(np.maximum(draws[0] - draws[1], 0))
    assert boosting.best_percent == pytest.approx(100 * best, abs=0.2)
    assert boosting.expected_loss == pytest.approx(gap, rel=0.02)
    assert control.best_percent + boosting.best_percent == pytest.approx(100)
    assert found.best == "boosting"
    assert found.reason.startswith(f"boosting is best with probability {boosting.best_percent:.0f} %; ")
    assert "and, with 95 % certainty, 0.00 % at most" in found.reason


def test_visits_of_the_same_units_add_no_certainty(tmp_path: Path) -> None:
    once = report_of(clicks((30, 45), (100, 100)), tmp_path).posteriors()
    (tmp_path / "often").mkdir()
    often = report_of(clicks((30, 45), (100, 100), visits=4), tmp_path / "often").posteriors()
    assert [arm.observations for arm in often.arms] == [400, 400]
    for few, many in zip(once.arms, often.arms, strict=True):
        assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.01)


def test_other_means_have_students_posterior(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    ledger = Ledger()
    experiment = ledger.add_experiment([{**REVENUE, "direction": "decrease"}, RATIO])
    values = generator.gamma(2, 5, (2, 200)) * [[1.0], [0.8]]
    for arm, row in enumerate(values):
        for number, value in enumerate(row):
            key = ledger.decide(experiment, arm, f"{arm}-{number}", START_MS + number)
            ledger.observe(key, "revenue", value)
            ledger.observe(key, "value", 3 * value)
            ledger.observe(key, "visit", 3.0)
    report = report_of(ledger, tmp_path)
    found = report.posteriors()
    ratios = report.posteriors("value-per-visit").arms
    for believed, ratio, row in zip(found.arms, ratios, values, strict=True):
        interval = stats.t(199, row.mean(), row.std(ddof=1) / np.sqrt(200)).interval(0.95)
        assert (believed.low, believed.high) == pytest.approx(interval, rel=0.01)
        assert (ratio.low, ratio.high) == pytest.approx((believed.low, believed.high))
    assert found.best == "boosting"
    assert found.reason.startswith("boosting is best with probability 100 %; shipping it now may cost ")


def test_densities_integrate_to_one(tmp_path: Path) -> None:
    densities = report_of(clicks((30, 45, 0), (100, 100, 0)), tmp_path).posteriors().densities
    for _, points in densities.groupby("arm"):
        assert np.trapezoid(points["density"], points["value"]) == pytest.approx(1, abs=0.01)
    assert set(densities["arm"]) == {"control", "boosting", "forest"}


def test_without_observations_nothing_is_believed(tmp_path: Path) -> None:
    found = report_of(clicks((0, 0), (0, 0)), tmp_path).posteriors()
    assert found.reason == "not enough evidence: no arm has observations of click"
    assert found.frame().empty
    assert found.densities.empty


def test_mixed_lists_have_no_means(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add_experiment([BRIER], allocation={"kind": "interleave"})
    with pytest.raises(UnknownMetric, match="interleaves rankings"):
        report_of(ledger, tmp_path).posteriors()
