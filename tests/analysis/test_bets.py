from pathlib import Path

import numpy as np
import pytest

from analysis.bets import MOST_EPOCHS, draws_of
from analysis.report import Report, load
from analysis.statistics.betting import contrast_draws, sequence
from tests.analysis.ledgers import CLICK, DAY_MS, START_MS, Ledger

SHARES = ((0.5, 0.5), (0.2, 0.8), (0.05, 0.95), (0.02, 0.98))
DECISIONS = 1600


def bandit(floor: float) -> Ledger:
    """Four epochs that follow a better arm, ever nearer to the floor."""
    ledger, chance = Ledger(), np.random.default_rng(8)
    experiment = ledger.add_experiment(
        [{**CLICK, "default": None}],
        epochs=SHARES,
        randomise="request",
        allocation={"kind": "thompson", "metric": "click", "floor": floor},
    )
    for number in range(DECISIONS):
        epoch = 1 + 4 * number // DECISIONS
        arm = int(chance.random() < SHARES[epoch - 1][1])
        key = ledger.decide(experiment, arm, f"u{number}", START_MS + number * 1000, epoch=epoch)
        ledger.observe(key, "click", float(chance.random() < (0.3, 0.5)[arm]))
    return ledger


def report(ledger: Ledger, folder: Path) -> Report:
    return load("boosting-vs-logistic", ledger.write_sqlite(folder / "turnout.db"), now_ms=START_MS + DAY_MS)


def test_below_the_floor_of_asymptotics_intervals_are_bets(tmp_path: Path) -> None:
    ledger = bandit(0.02)
    loaded = report(ledger, tmp_path)
    looks = loaded.looks(loaded.experiment.primary)[1]
    clicked = {row["decision_id"]: row["value"] for row in ledger.outcomes}
    arm = np.array([row["arm"] for row in ledger.decisions])[:, np.newaxis] == np.arange(2)
    value = np.array([clicked[row["id"]] for row in ledger.decisions])[:, np.newaxis] * arm
    # Equal periods of 16 decisions, other than the report's, so that past means and variances differ a little.
    counts, totals = (each.reshape(-1, 16, 2).sum(axis=1) for each in (arm, value))
    low, high = sequence(contrast_draws(np.repeat(SHARES, 25, axis=0), counts, totals, 1, 0), 10_000, 0.05, 500)
    assert looks.difference.interval.low[-1] == pytest.approx(low[-1], abs=0.02)
    assert looks.difference.interval.high[-1] == pytest.approx(high[-1], abs=0.02)
    assert looks.difference.interval.low[-1] < looks.difference.value[-1] < looks.difference.interval.high[-1]
    assert looks.treatment.interval.low[-1] < 0.5 < looks.treatment.interval.high[-1]
    assert (looks.treatment.interval.high <= 1).all()
    assert (np.diff(looks.p_values) <= 0).all()


def test_at_the_default_floor_they_are_not(tmp_path: Path) -> None:
    loaded = report(bandit(0.05), tmp_path)
    asymptotic = loaded.looks(loaded.experiment.primary)[1].treatment.interval
    assert np.isinf(asymptotic.low[0])


def test_bets_need_one_outcome_per_decision_and_not_too_many_epochs(tmp_path: Path) -> None:
    experiment = report(bandit(0.02), tmp_path).experiment
    row = {"period": 0, "epoch": 1, "arm": 0, "n": 1.0, "d": 2.0, "dd": 2.0}
    periods = np.arange(MOST_EPOCHS + 1)
    found = draws_of([row, row | {"arm": 1}], periods, experiment, 1)
    assert found is not None
    assert found.counts.tolist() == [[2.0, 2.0, 0.0]]
    assert draws_of([row | {"dd": 4.0}], periods, experiment, 1) is None
    assert draws_of([row | {"period": period} for period in periods.tolist()], periods, experiment, 1) is None
