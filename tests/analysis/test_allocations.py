"""Reports of experiments whose traffic followed the outcomes, or whose lists mixed several rankings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert

from analysis.errors import UnknownMetric
from analysis.experiment import INTERLEAVED
from analysis.html import page
from analysis.interleaved import Pair
from analysis.report import Report, load
from analysis.tables import tables
from tests.analysis.ledgers import CLICK, MINUTE_MS, START_MS, Ledger
from tests.analysis.test_html import specifications
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
def test_bandits_get_means_of_all_traffic_with_intervals(tmp_path: Path, allocation: Mapping[str, Any]) -> None:
    loaded = report(bandit(allocation), tmp_path)
    control, boosting = loaded.results
    assert boosting.mean - control.mean == pytest.approx(boosting.difference, rel=1e-9)
    assert boosting.difference_low < 0.4 < boosting.difference_high
    assert 0 < boosting.p_value < 0.001
    assert loaded.verdict().decision == "advance"
    assert any("an arm's own mean is biased" in note for note in loaded.notes)
    assert loaded.timeline()[["low", "high"]].isna().all(axis=None)
    with pytest.raises(UnknownMetric, match="has no fixed-horizon test, as its shares changed"):
        loaded.fixed_horizon()


@pytest.mark.parametrize(
    ("allocation", "title", "heading"),
    [
        (THOMPSON, "boosting has 95 % of the traffic, by the newest of 2 epochs", "last share"),
        (CONTEXTUAL, "boosting got 73 % of the decisions", "share"),
    ],
)
def test_report_of_a_bandit_shows_shares_and_changes(
    tmp_path: Path, allocation: Mapping[str, Any], title: str, heading: str
) -> None:
    loaded = report(bandit(allocation), tmp_path)
    html = page(loaded)
    assert html.count("traffic followed the outcomes") == 1
    titles = [" ".join(json.loads(text)["title"]["text"]) for text in specifications(html)]
    assert title in titles
    arms, changes = tables(loaded)
    assert arms.headings[-1] == heading
    assert [row[-1] for row in arms.rows] == [f"{100 * each.share:.1f} %" for each in loaded.hindsight().arms]
    assert [row[-1] for row in changes.rows] == ["", "better"]


def test_shares_of_a_bandit_are_those_of_its_epochs(tmp_path: Path) -> None:
    ledger = bandit(THOMPSON)
    ledger.epochs[1]["published_ms"] = START_MS + 400 * MINUTE_MS
    shares = report(ledger, tmp_path).allocation()
    assert list(shares["arm"]) == ["control", "boosting"] * 2
    assert list(shares["share"]) == [0.5, 0.5, 0.05, 0.95]
    assert list(shares["published"].dt.hour) == [0, 0, 6, 6]


def test_shares_of_a_contextual_bandit_are_those_of_its_decisions(tmp_path: Path) -> None:
    ledger = bandit(CONTEXTUAL)
    for epoch in ledger.epochs:
        epoch["runs"] = "[[10000,0]]"
    loaded = report(ledger, tmp_path)
    chosen = [row["arm"] for row in ledger.decisions]
    assert list(loaded.allocation()["share"][2:]) == pytest.approx([1 - np.mean(chosen[400:]), np.mean(chosen[400:])])
    assert [each.share for each in loaded.hindsight().arms] == pytest.approx([1 - np.mean(chosen), np.mean(chosen)])


def test_bandit_without_traffic_can_be_drawn(tmp_path: Path) -> None:
    for allocation in (THOMPSON, CONTEXTUAL):
        ledger = Ledger()
        ledger.add_experiment([NO_DEFAULT], name="idle", epochs=[(0.5, 0.5)], allocation=allocation)
        folder = tmp_path / str(allocation["kind"])
        folder.mkdir()
        loaded = load("idle", ledger.write_sqlite(folder / "turnout.db"))
        assert vl_convert.vegalite_to_png(loaded.plot.summary().to_json()).startswith(b"\x89PNG")


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
    control, challenger = loaded.results
    assert (control.units, control.decisions, challenger.units, challenger.decisions) == (90, 200, 90, 200)
    assert (control.verdict, challenger.verdict) == ("reference", "better")
    assert challenger.mean == pytest.approx(0.5 - pair.delta)
    assert [challenger.difference_low, challenger.difference_high] == pytest.approx([-pair.high, -pair.low])
    verdict = loaded.verdict()
    assert (verdict.decision, verdict.arm) == ("advance", "arm-1")
    assert verdict.summary == (
        f"arm-1 earns more click than arm-0: {100 * pair.share:.1f} % of the credit "
        f"(95 % CI {100 * pair.share_low:.1f} to {100 * pair.share_high:.1f})"
    )
    [note] = loaded.notes
    assert note.startswith("200 lists of 90 units mixed the rankings of all arms")


def test_report_of_interleaved_arms_has_their_lists_and_one_chart(tmp_path: Path) -> None:
    loaded = report(interleaved(), tmp_path)
    pair = the_pair(loaded)
    arms, lists = tables(loaded)
    assert [row[2:] for row in arms.rows] == [("90", "200")] * 2
    assert lists.rows == (
        (
            "click", "arm-1", "arm-0", "200", str(pair.losses), str(pair.wins), str(pair.ties),
            f"{100 * pair.share:.1f} % ({100 * pair.share_low:.1f} to {100 * pair.share_high:.1f})", "better",
        ),
    )  # fmt: skip
    html = page(loaded)
    [chart] = [json.loads(text) for text in specifications(html)]
    assert " ".join(chart["title"]["text"]) == loaded.verdict().summary
    assert vl_convert.vegalite_to_png(json.dumps(chart)).startswith(b"\x89PNG")
    assert "not enough evidence" not in html
    with pytest.raises(UnknownMetric, match="interleaves rankings"):
        loaded.plot.timeline()


def test_every_metric_of_every_pair_is_reported(tmp_path: Path) -> None:
    ledger = interleaved(3)
    document = json.loads(ledger.experiments[0]["document"])
    document["metrics"].append({**CLICK, "name": "booked", "role": "secondary"})
    ledger.experiments[0]["document"] = json.dumps(document)
    loaded = report(ledger, tmp_path)
    _, lists = tables(loaded)
    assert [row[:3] for row in lists.rows] == [
        (metric, arm, against)
        for metric in ("click", "booked")
        for arm, against in (("arm-1", "arm-0"), ("arm-2", "arm-0"), ("arm-2", "arm-1"))
    ]
    assert {row[-1] for row in lists.rows if row[0] == "booked"} == {"insufficient"}
    assert loaded.verdict().arm == "arm-2"
    verdicts = [row[-1] for row in lists.rows]
    assert [row.verdict for row in loaded.results] == ["reference", *verdicts[:2], "reference", *verdicts[3:5]]


@pytest.mark.parametrize(
    ("options", "direction", "verdict", "reason"),
    [
        ({}, "decrease", "worse", "arm-1 earns more click than arm-0: "),
        ({"prefer": 0.2}, "increase", "worse", "arm-1 earns less click than arm-0: "),
        ({"prefer": 0.5}, "increase", "insufficient", "not enough evidence: arm-1 may earn as much click as arm-0: "),
        ({"prefer": 1.0}, "increase", "insufficient", "not enough evidence: all 90 units with lists of arm-0 and "),
        ({"lists": 20}, "increase", "insufficient", "not enough evidence: 20 units saw lists of arm-0 and arm-1, and "),
        ({"lists": 0}, "increase", "insufficient", "not enough evidence: 0 units saw lists of arm-0 and arm-1, and "),
    ],
)
def test_verdict_on_a_ranking_follows_from_its_share(
    tmp_path: Path, options: Any, direction: str, verdict: str, reason: str
) -> None:
    ledger = interleaved(**options)
    document = json.loads(ledger.experiments[0]["document"])
    document["metrics"][0]["direction"] = direction
    ledger.experiments[0]["document"] = json.dumps(document)
    loaded = report(ledger, tmp_path)
    assert loaded.results[1].verdict == verdict
    assert loaded.verdict().summary.startswith(reason)
    assert loaded.verdict().decision == {"worse": "rollback"}.get(verdict, verdict)
    assert vl_convert.vegalite_to_png(loaded.plot.summary().to_json()).startswith(b"\x89PNG")
    page(loaded)


def test_margin_of_a_guardrail_says_nothing_of_credit(tmp_path: Path) -> None:
    ledger = interleaved()
    document = json.loads(ledger.experiments[0]["document"])
    document["metrics"].append({**CLICK, "name": "booked", "role": "guardrail", "margin": 5.0})
    ledger.experiments[0]["document"] = json.dumps(document)
    verdict = report(ledger, tmp_path).verdict()
    assert verdict.decision == "insufficient"
    assert verdict.summary.startswith("guardrail booked is not shown to stay within its margin of 0.00")


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
