import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.errors import UnknownMetric
from analysis.report import Report, load
from tests.analysis.ledgers import CLICK, DAY_MS, REVENUE, START_MS, Ledger
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"


def revenue(units: int, **settings: Any) -> tuple[Ledger, np.ndarray[Any, np.dtype[np.float64]]]:
    """Values of so many units per arm over two days."""
    values = np.random.default_rng(1).gamma(4, 5, (2, units))
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE, {**CLICK, "role": "secondary", "window_s": 86_400}], **settings)
    for arm, row in enumerate(values):
        for number, value in enumerate(row):
            at_ms = START_MS + round(2 * DAY_MS * number / (units - 1))
            key = ledger.decide(experiment, arm, f"{arm}-{number}", at_ms)
            ledger.observe(key, "revenue", value)
            if number % 4 == 0:
                ledger.observe(key, "click", 1.0)
    return ledger, values


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    ledger, _ = revenue(300)
    url = ledger.write_sqlite(tmp_path_factory.mktemp("planning") / "a.db")
    return load(NAME, url, now_ms=START_MS + 5 * DAY_MS)


def test_what_it_takes_is_what_the_textbook_says(report: Report) -> None:
    _, values = revenue(300)
    found = report.power()
    base, variance = values[0].mean(), values.var(axis=1, ddof=1).sum()
    factor = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2
    (now,) = found.detectable
    assert now.units == 600
    assert now.units_per_day == pytest.approx(300)
    assert now.fixed_horizon_percent == pytest.approx(100 * math.sqrt(factor * variance / 300) / base, rel=0.01)
    for need in found.needs:
        effect = need.effect_percent / 100 * base
        assert need.effect == pytest.approx(effect)
        assert need.fixed_horizon_units == pytest.approx(2 * factor * variance / effect**2, rel=0.01)
        assert need.fixed_horizon_days == pytest.approx(need.fixed_horizon_units / 300)
        assert need.fixed_horizon_units < need.anytime_units < 3 * need.fixed_horizon_units
        assert need.anytime_days / need.fixed_horizon_days == pytest.approx(
            need.anytime_units / need.fixed_horizon_units
        )


def test_the_least_effect_is_the_one_that_takes_the_units_there_are(report: Report) -> None:
    (now,) = report.power().detectable
    again = report.power(effects_percent=[now.fixed_horizon_percent, now.anytime_percent]).needs
    assert again[0].fixed_horizon_units == pytest.approx(600, abs=1)
    assert again[0].power_now_percent == pytest.approx(80)
    assert again[1].anytime_units == pytest.approx(600, abs=1)
    assert now.reason.startswith("600 units of boosting and control find a change of revenue by ")
    assert " with 80 % power in one planned look, and by " in now.reason


def test_windows_add_to_the_days(report: Report) -> None:
    need = report.power("click", effects_percent=[50.0]).needs[0]
    assert need.fixed_horizon_days == pytest.approx(need.fixed_horizon_units / 300 + 1)


def test_one_row_per_effect_with_units_in_the_names(report: Report) -> None:
    frame = report.power(effects_percent=[1, 20], wanted=0.9).frame()
    assert list(frame["effect_percent"]) == [1, 20]
    assert (frame["fixed_horizon_units"] > report.power(effects_percent=[1, 20]).frame()["fixed_horizon_units"]).all()


def test_too_little_data_plan_nothing(tmp_path: Path) -> None:
    ledger, _ = revenue(20)
    found = load(NAME, ledger.write_sqlite(tmp_path / "a.db"), now_ms=START_MS + 5 * DAY_MS).power()
    reason = "not enough evidence: control has 20 units with revenue, and an interval needs 30"
    assert found.detectable[0].reason == reason
    assert found.frame()["anytime_units"].isna().all()


@pytest.mark.parametrize("kind", ["thompson", "interleave"])
def test_shares_that_follow_outcomes_are_not_planned_by_formulas(tmp_path: Path, kind: str) -> None:
    ledger = Ledger()
    ledger.add_experiment([BRIER], allocation={"kind": kind, "metric": "brier"})
    with pytest.raises(UnknownMetric, match="turnout simulate" if kind == "thompson" else "interleaves rankings"):
        load(NAME, ledger.write_sqlite(tmp_path / "a.db")).power()
