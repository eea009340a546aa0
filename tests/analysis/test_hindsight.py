from pathlib import Path

import numpy as np
import pytest

from analysis.errors import UnknownMetric
from analysis.report import load
from tests.analysis.ledgers import CLICK, MINUTE_MS, START_MS, Ledger
from tests.databases import BACKENDS, database
from tests.metrics import BRIER

THOMPSON = {"kind": "thompson", "metric": "brier"}


def bandit() -> Ledger:
    """Thirty decisions at even shares, then thirty of which the second arm gets nine in ten."""
    ledger, chance = Ledger(), np.random.default_rng(3)
    experiment = ledger.add_experiment(
        [BRIER], epochs=[(0.5, 0.5), (0.1, 0.9)], randomise="request", allocation=THOMPSON
    )
    for number in range(60):
        epoch, late = 1 + number // 30, float(chance.random() < 0.4)
        share = (0.5, 0.9)[epoch - 1]
        arm = int(chance.random() < share)
        at_ms = START_MS + number * MINUTE_MS
        key = ledger.decide(experiment, arm, f"u{number}", at_ms, epoch=epoch, predictions=[(0.5, 0.3)[arm]])
        ledger.decisions[-1]["propensity"] = share if arm else 1 - share
        if number % 10:
            ledger.observe(key, "late", late, label=True)
    return ledger


def expected_means(ledger: Ledger) -> list[float]:
    labels = {row["decision_id"]: row for row in ledger.outcomes}
    means = []
    for arm in (0, 1):
        weight = {row["id"]: 1 / row["propensity"] for row in ledger.decisions if row["arm"] == arm}
        rows = [(labels[key], each) for key, each in weight.items() if key in labels]
        scored = sum(each * (row["value"] - row["prediction"]) ** 2 for row, each in rows)
        means.append(scored / sum(each for _, each in rows))
    return means


@pytest.mark.parametrize("backend", BACKENDS)
def test_arms_are_weighted_by_their_propensities(tmp_path: Path, backend: str) -> None:
    ledger = bandit()
    with database(backend, tmp_path) as url:
        found = load("boosting-vs-logistic", ledger.write(url)).hindsight()
    control, boosting = found.arms
    assert [control.weighted_mean, boosting.weighted_mean] == pytest.approx(expected_means(ledger))
    assert (control.share, boosting.share, found.epochs) == (0.1, 0.9, 2)
    assert control.decisions + boosting.decisions == 60
    assert control.observations + boosting.observations == 54
    gap = abs(control.weighted_mean - boosting.weighted_mean)
    worse = boosting if found.best == "control" else control
    assert found.regret == pytest.approx(worse.observations * gap)
    assert found.uniform_regret == pytest.approx(27 * gap)


def test_lake_says_the_same_as_the_ledger(tmp_path: Path) -> None:
    ledger = bandit()
    first = load("boosting-vs-logistic", ledger.write_sqlite(tmp_path / "turnout.db")).hindsight()
    second = load("boosting-vs-logistic", ledger.write_lake(tmp_path / "lake")).hindsight()
    assert first.best == second.best
    assert first.regret == pytest.approx(second.regret)


def test_no_regret_without_outcomes(tmp_path: Path) -> None:
    ledger = bandit()
    ledger.outcomes.clear()
    found = load("boosting-vs-logistic", ledger.write_sqlite(tmp_path / "turnout.db")).hindsight()
    assert found.best is None
    assert np.isnan([found.regret, found.uniform_regret, found.arms[0].mean]).all()


def test_mixed_lists_have_no_shares_to_look_back_on(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add_experiment([CLICK], epochs=[(0.0, 0.0)], allocation={"kind": "interleave", "method": "team_draft"})
    loaded = load("boosting-vs-logistic", ledger.write_sqlite(tmp_path / "mixed.db"))
    with pytest.raises(UnknownMetric, match=r"interleaves rankings; see its interleaving\(\)"):
        loaded.hindsight()
