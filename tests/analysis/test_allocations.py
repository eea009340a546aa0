"""Reports of experiments whose traffic followed the outcomes, or whose lists mixed several rankings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.errors import UnknownMetric
from analysis.experiment import INTERLEAVED
from analysis.html import page
from analysis.interleaved import Pair
from analysis.report import Report, load
from tests.analysis.ledgers import CLICK, MINUTE_MS, START_MS, Ledger
from tests.databases import database

THOMPSON = {"kind": "thompson", "metric": "click"}
CONTEXTUAL = {"kind": "contextual", "metric": "click", "features": []}
NO_DEFAULT = {**CLICK, "default": None}


def bandit(allocation: Mapping[str, Any], later: tuple[float, float] = (0.05, 0.95)) -> Ledger:
    """An experiment whose second epoch follows from the first, and a real difference between its arms."""
    ledger, chance = Ledger(), np.random.default_rng(1)
    experiment = ledger.add_experiment(
        [NO_DEFAULT], epochs=[(0.5, 0.5), later], randomise="request", allocation=allocation
    )
    for number in range(800):
        epoch = 1 + number // 400
        arm = int(chance.random() < (0.5, later[1])[epoch - 1])
        key = ledger.decide(experiment, arm, f"u{number}", START_MS + number * MINUTE_MS, epoch=epoch)
        ledger.observe(key, "click", float(chance.random() < (0.2, 0.6)[arm]))
    return ledger


def interleaved(arms: int = 2, method: str = "team_draft", *, prefer: float = 0.8, lists: int = 200) -> Ledger:
    """Lists of two places, clicked once in `prefer` of all cases on the place of the last arm."""
    ledger, chance = Ledger(), np.random.default_rng(2)
    experiment = ledger.add_experiment(
        [{**CLICK, "default": 0}],
        arms=[f"arm-{number}" for number in range(arms)],
        epochs=[(0.0,) * arms],
        allocation={"kind": "interleave", "method": method, "length": 2},
    )
    ledger.epochs[0]["runs"] = "[[10000,254]]"
    for number in range(lists):
        teams = [int(each) for each in chance.permutation(arms)]
        draw = {
            "scores": [[0.0] * 4] * arms,
            "teams": teams,
            "credits": [[float(team == arm) for arm in range(arms)] for team in teams],
        }
        shown = [int(each) for each in chance.permutation(4)[:arms]]
        key = ledger.decide(
            experiment, INTERLEAVED, f"u{number % 90}", START_MS + number, predictions=[0.5] * 4, shown=shown, draw=draw
        )
        liked = arms - 1 if chance.random() < prefer else 0
        ledger.observe(key, "click", 1.0, item=shown[teams.index(liked)])
    return ledger


def report(ledger: Ledger, folder: Path, **options: int) -> Report:
    return load("boosting-vs-logistic", ledger.write_sqlite(folder / "turnout.db"), **options)


def the_pair(loaded: Report) -> Pair:
    [row] = loaded.interleaving().to_dict("records")
    return Pair(**{str(name): value for name, value in row.items()})


@pytest.mark.parametrize("allocation", [THOMPSON, CONTEXTUAL])
def test_bandits_get_means_but_no_intervals(tmp_path: Path, allocation: Mapping[str, Any]) -> None:
    loaded = report(bandit(allocation), tmp_path)
    control, boosting = loaded.results
    assert boosting.mean > control.mean
    assert np.isnan([boosting.difference, boosting.difference_low, boosting.p_value, boosting.lift_percent]).all()
    assert boosting.verdict == "insufficient"
    verdict = loaded.verdict()
    assert verdict.decision == "insufficient"
    assert "means of arms are biased" in verdict.summary
    assert verdict.summary in loaded.notes
    assert loaded.timeline()[["low", "high"]].isna().all(axis=None)
    assert "means of arms are biased" in page(loaded)


def test_the_split_of_a_bandit_is_tested_against_every_epoch(tmp_path: Path) -> None:
    assert 0.001 < report(bandit(THOMPSON), tmp_path).srm().p_value < 1
    (tmp_path / "broken").mkdir()
    broken = bandit(THOMPSON)
    broken.epochs[1]["runs"] = "[[2000,0],[8000,1]]"
    assert report(broken, tmp_path / "broken").srm().mismatch


def test_the_split_of_a_contextual_bandit_is_not_tested(tmp_path: Path) -> None:
    loaded = report(bandit(CONTEXTUAL), tmp_path)
    assert np.isnan(loaded.srm().p_value)
    assert "the split was not tested: every request had shares of its own" in loaded.notes


@pytest.mark.parametrize("method", ["team_draft", "probabilistic", "optimised"])
def test_interleaved_arms_compare_by_credit(tmp_path: Path, method: str) -> None:
    loaded = report(interleaved(method=method), tmp_path)
    pair = the_pair(loaded)
    assert (pair.first, pair.second, pair.impressions, pair.units) == ("arm-0", "arm-1", 200, 90)
    assert pair.wins + pair.losses + pair.ties == 200
    assert pair.losses > 140
    assert pair.delta == pytest.approx((pair.wins - pair.losses) / 400)
    assert pair.low < pair.delta < pair.high < 0
    assert loaded.verdict().decision == "insufficient"
    assert "credit within lists" in loaded.verdict().summary
    assert any("arm-0 against arm-1: 200 lists of 90 units" in note for note in loaded.notes)
    assert "arm-0 against arm-1" in page(loaded)


def test_three_interleaved_arms_are_compared_in_pairs(tmp_path: Path) -> None:
    frame = report(interleaved(3), tmp_path).interleaving()
    assert list(zip(frame["first"], frame["second"], strict=True)) == [
        ("arm-0", "arm-1"),
        ("arm-0", "arm-2"),
        ("arm-1", "arm-2"),
    ]
    last = frame.to_dict("records")[2]
    assert last["delta"] == pytest.approx((last["wins"] - last["losses"]) / 400)
    assert last["losses"] > 100


def test_arms_that_earn_alike_are_not_told_apart(tmp_path: Path) -> None:
    pair = the_pair(report(interleaved(prefer=0.5, lists=600), tmp_path))
    assert pair.low < 0 < pair.high
    assert pair.p_value > 0.05


def test_every_source_says_the_same_of_interleaved_arms(tmp_path: Path) -> None:
    ledger = interleaved()
    expected = report(ledger, tmp_path).interleaving()
    with database("postgresql", tmp_path) as url:
        assert load("boosting-vs-logistic", ledger.write(url)).interleaving().equals(expected)
    assert load("boosting-vs-logistic", ledger.write_lake(tmp_path / "lake")).interleaving().equals(expected)


def test_only_interleaved_arms_compare_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownMetric, match="does not interleave"):
        report(bandit(THOMPSON), tmp_path).interleaving()


def test_a_default_counts_for_what_a_list_showed(tmp_path: Path) -> None:
    """Four candidates, two of them shown, one of these clicked."""
    ledger = Ledger()
    experiment = ledger.add_experiment([CLICK])
    for number in range(40):
        key = ledger.decide(
            experiment, number % 2, f"u{number}", START_MS, predictions=[0.1, 0.2, 0.3, 0.4], shown=[3, 2]
        )
        ledger.observe(key, "click", 1.0, item=3)
    loaded = report(ledger, tmp_path, now_ms=START_MS + 7_200_000)
    assert {(row.observations, row.mean) for row in loaded.results} == {(40, 0.5)}
