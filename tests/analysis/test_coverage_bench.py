"""The benchmark of coverage reads what a report would read."""

import numpy as np
import pytest

from analysis.periods import Periods
from bench.coverage import run_chunk
from bench.readings import look_at, methods, read
from bench.worlds import Setting, play

SPLIT = Setting("split", "binary", (0.3, 0.3), (0.3, 0.5), epochs=8, batch=100)
BANDIT = SPLIT._replace(name="bandit", floor=0.05, min_matured=10)


def test_looks_are_the_periods_of_a_report() -> None:
    of_report = Periods(0, 799_000)
    numbers = [of_report.number(1000 * decision) for decision in range(800)]
    assert (np.diff(SPLIT.periods) > 0).tolist() == (np.diff(numbers) > 0).tolist()
    assert SPLIT._replace(by_epoch=True).periods.tolist() == [decision // 100 for decision in range(800)]


def test_labels_count_as_not_observed_until_they_arrive() -> None:
    late = SPLIT._replace(delay=300, late=True)
    log = play(late, late.equal, 3, np.random.default_rng(1))
    for decisions in (100, 555, 800):
        cells = log.cells_after(decisions)
        assert (cells.decisions.sum(axis=1) == decisions).all()
        known = log.known[:, :decisions] <= decisions
        assert (cells.totals[..., 1].sum(axis=(1, 2)) == known.sum(axis=1)).all()
        assert cells.totals[..., 0].sum() == log.values[:, :decisions, 0][known].sum()
    assert (log.known <= 800).mean() < 0.8
    found = read("sequence", log, look_at(log), late.equal)
    assert found.decisions[-1] == 800
    assert found.difference.shape == (3, len(found.decisions))


def test_bandits_follow_what_they_know() -> None:
    quick, slow = (
        play(BANDIT._replace(delay=delay), BANDIT.different, 20, np.random.default_rng(1)).shares for delay in (0, 400)
    )
    assert (quick[:, 0] == 0.5).all()
    assert quick[:, -1, 1].mean() > 0.85
    assert (slow[:, :5] == 0.5).all()
    assert slow[:, -1, 1].mean() > 0.6


@pytest.mark.parametrize("setting", [SPLIT, BANDIT, SPLIT._replace(returning=True, shares=((0.8, 0.2), (0.5, 0.5)))])
def test_every_method_reads_both_worlds(setting: Setting) -> None:
    found = run_chunk(setting, 6, np.random.SeedSequence(1))
    assert [*found] == [*methods(setting)]
    for figures in found.values():
        assert (figures.false_alarm.shape, figures.difference.shape, figures.arms.shape) == ((6,), (6,), (2, 6))
        assert (figures.decided > 0).all()
    # A fifth more is found by all who look, in 800 decisions.
    assert np.isfinite(found["sequence"].decided).mean() > 0.5
