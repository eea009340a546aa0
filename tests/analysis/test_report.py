import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.errors import (
    AnalysisError,
    ExperimentNotFound,
    InvalidExperiment,
    InvalidLevel,
    UnknownArm,
    UnknownMetric,
    UnreadableSource,
)
from analysis.fixed_horizon import Effect
from analysis.report import Report, load
from analysis.results import Result
from router.assignment.epochs import HOLDOUT
from router.decision_id import FORCED
from tests.analysis.ledgers import CLICK, DAY_MS, MINUTE_MS, REVENUE, START_MS, Ledger, everything, flights
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
NOW_MS = START_MS + int(1.2 * DAY_MS)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The same content as a ledger and as a lake."""
    folder, ledger = tmp_path_factory.mktemp("rich"), everything()
    return ledger.write_sqlite(folder / "turnout.db"), ledger.write_lake(folder / "lake")


@pytest.fixture(scope="module")
def rich_report(rich: tuple[str, Path]) -> Report:
    """The report of the largest experiment, from the ledger."""
    return load(NAME, rich[0], now_ms=NOW_MS)


def _load(ledger: Ledger, path: Path) -> Report:
    return load(NAME, ledger.write_sqlite(path / "turnout.db"), now_ms=START_MS + 30 * DAY_MS)


def _rows(report: Report) -> dict[tuple[str, str], Result]:
    return {(row.metric, row.arm): row for row in report.results}


def _decisions(ledger: Ledger, arm: int) -> list[dict[str, Any]]:
    return [
        row
        for row in ledger.decisions
        if row["experiment_id"] == 1 and row["arm"] == arm and row["epoch"] > 0 and row["decided_ms"] <= NOW_MS
    ]


def _equal(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right, rtol=1e-9, atol=1e-12, check_exact=False)


def test_summary_has_a_row_per_metric_and_arm_with_control_first(rich_report: Report) -> None:
    summary = rich_report.summary()
    assert list(summary["arm"]) == ["control", "boosting", "forest", "idle"] * 11
    assert list(summary["role"]) == ["control", "treatment", "treatment", "treatment"] * 11
    assert summary["metric"].nunique() == 11
    # alpha is split over three treatment arms
    assert summary["confidence"].unique() == pytest.approx([1 - 0.05 / 3])


def test_summary_counts_what_the_ledger_has(rich_report: Report) -> None:
    ledger = everything()
    rows = _rows(rich_report)
    for arm, name in enumerate(("control", "boosting", "forest")):
        decisions = _decisions(ledger, arm)
        ids = {row["id"] for row in decisions}
        labels = [row for row in ledger.standing(NOW_MS) if row["metric"] == "late" and row["decision_id"] in ids]
        brier = rows["brier", name]
        assert brier.decisions == rows["click", name].decisions == len(decisions)
        assert brier.units == len({row["unit"] for row in decisions})
        assert brier.observations == len(labels)
        own = rich_report.hindsight("brier").arms[arm].mean
        assert own == pytest.approx(np.mean([(row["prediction"] - row["value"]) ** 2 for row in labels]))


def test_fixed_horizon_agrees_with_scipy_for_one_decision_per_unit(tmp_path: Path) -> None:
    ledger = flights(600)
    scores: tuple[list[float], list[float]] = ([], [])
    for outcome in ledger.outcomes:
        scores[outcome["arm"]].append((outcome["prediction"] - outcome["value"]) ** 2)
    welch = stats.ttest_ind(scores[1], scores[0], equal_var=False)
    interval = welch.confidence_interval(0.95)
    row = _load(ledger, tmp_path).fixed_horizon().iloc[1]
    assert row["difference"] == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]), rel=1e-9)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high), rel=1e-7)
    assert row["p_value"] == pytest.approx(welch.pvalue, rel=1e-7)


def test_better_model_is_found_and_advanced(tmp_path: Path) -> None:
    report = _load(flights(1500), tmp_path)
    assert list(report.summary()["verdict"]) == ["reference", "better", "reference", "better"]
    verdict = report.verdict()
    assert (verdict.decision, verdict.arm) == ("advance", "boosting")
    assert verdict.summary.startswith("boosting lowers brier by ")
    assert report.notes == ("the split is as promised: sample ratio p = 1, and below 0.001 it is called broken",)


def test_equal_models_are_not_told_apart(tmp_path: Path) -> None:
    verdict = _load(flights(400, gain=0.0), tmp_path).verdict()
    assert verdict.decision == "insufficient"
    assert verdict.summary.startswith("not enough evidence: the change that boosting makes to brier may be 0")


def test_alpha_belongs_to_the_report(tmp_path: Path) -> None:
    url = flights(400).write_sqlite(tmp_path / "turnout.db")
    narrow, wide = (_rows(load(NAME, url, alpha=alpha))["brier", "boosting"] for alpha in (0.2, 0.01))
    assert (narrow.confidence, wide.confidence) == pytest.approx((0.8, 0.99))
    assert wide.difference_low < narrow.difference_low < narrow.difference_high < wide.difference_high


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_alpha_outside_its_range_is_refused(tmp_path: Path, alpha: float) -> None:
    with pytest.raises(InvalidLevel, match="must be between 0 and 1"):
        load(NAME, flights(20).write_sqlite(tmp_path / "turnout.db"), alpha=alpha)


def test_several_decisions_per_unit_widen_the_interval(tmp_path: Path) -> None:
    ledger, again = Ledger(), Ledger()
    for copy, repeats in ((ledger, 1), (again, 4)):
        generator = np.random.default_rng(9)
        experiment = copy.add_experiment([BRIER])
        for index in range(200):
            prediction, late = float(generator.uniform()), float(generator.uniform() < 0.3)
            for visit in range(repeats):
                key = copy.decide(experiment, index % 2, f"u{index}", START_MS + visit, predictions=[prediction])
                copy.observe(key, "late", late, label=True)
    once, often = (
        load(NAME, copy.write_sqlite(tmp_path / name)).fixed_horizon().iloc[1]
        for copy, name in ((ledger, "once.db"), (again, "often.db"))
    )
    # The same units four times over are four times the rows and not one bit more evidence.
    assert often["observations"] == 4 * once["observations"]
    assert list(often[[*Effect._fields]]) == pytest.approx(list(once[[*Effect._fields]]), rel=1e-9)


def test_experiment_without_traffic_says_so(rich: tuple[str, Path]) -> None:
    report = load("empty", rich[0], now_ms=NOW_MS)
    summary = report.summary()
    assert (summary[["units", "decisions", "observations"]] == 0).all(axis=None)
    assert summary[["mean", "difference", "p_value"]].isna().all(axis=None)
    assert report.verdict().summary == "not enough evidence: control has no observations of brier"
    assert report.notes[0] == "the split was not tested: there is too little traffic"
    assert report.timeline().empty
    assert report.reliability().empty


def test_arm_without_data_is_named(rich_report: Report) -> None:
    idle = _rows(rich_report)["click", "idle"]
    assert idle.units == 0
    assert idle.reason == "not enough evidence: idle has no observations of click"


def test_notes_tell_what_weakens_the_result(rich_report: Report) -> None:
    forest = _decisions(everything(), 2)
    fallbacks = sum(1 for row in forest if row["fallback"])
    notes = rich_report.notes
    assert "the experiment's state is running: what is said here holds however often it is read" in notes
    assert any(note.startswith("1 unit(s) got more than one arm") for note in notes)
    assert any(f"answered {fallbacks} of {len(forest)} decisions of forest" in note for note in notes)


def test_notes_count_the_decisions_whose_window_is_open(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([CLICK, {**REVENUE, "role": "secondary"}])
    for minute in (0, 30, 31):
        ledger.decide(experiment, 0, f"u{minute}", START_MS + minute * MINUTE_MS)
    notes = load(NAME, ledger.write_sqlite(tmp_path / "x.db"), now_ms=START_MS + 90 * MINUTE_MS).notes
    assert [note for note in notes if "window" in note] == [
        "1 decision(s) wait for their window of click (3600 s) to close"
    ]


def test_report_is_as_of_now_ms(tmp_path: Path) -> None:
    url = flights(400).write_sqlite(tmp_path / "turnout.db")
    first_day = load(NAME, url, now_ms=START_MS + DAY_MS).summary()
    assert first_day["decisions"].sum() == 2 * 201
    assert first_day["observations"].sum() == 2 * 200
    assert load(NAME, url, now_ms=START_MS - 1).summary()["decisions"].sum() == 0


def test_now_defaults_to_the_clock(tmp_path: Path) -> None:
    before = datetime.now(UTC).timestamp()
    report = load(NAME, flights(20).write_sqlite(tmp_path / "turnout.db"))
    assert before - 1 <= report.now_ms / 1000 <= datetime.now(UTC).timestamp()


def test_sample_ratio_tests_first_draws_in_their_own_epoch(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER], epochs=((0.9, 0.1), (0.5, 0.5)))
    for index in range(200):
        epoch, arm = (1, index % 10 == 0) if index < 100 else (2, index % 2)
        for visit in range(1 + 3 * (arm == 0)):
            ledger.decide(
                experiment, int(arm), f"u{index}", START_MS + index + 1000 * visit, epoch=2 if visit else epoch
            )
    report = _load(ledger, tmp_path)
    assert list(report.assignments()["draws"]) == [90, 10, 50, 50]
    assert list(report.assignments()["expected_draws"]) == pytest.approx([90, 10, 50, 50])
    assert (report.srm().p_value, report.srm().fixed_horizon_p_value) == (1.0, 1.0)


def test_sample_ratio_of_requests_counts_every_decision(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER], randomise="request")
    for index in range(100):
        ledger.decide(experiment, index % 2, f"u{index % 5}", START_MS + index)
    report = _load(ledger, tmp_path)
    assert list(report.assignments()["draws"]) == [50, 50]
    assert any(note.startswith("5 unit(s) got more than one arm") for note in report.notes)


def test_sample_ratio_is_that_of_the_units_that_are_not_held_out(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER], epochs=((0.75, 0.25), (0.5, 0.5), (0.5, 0.5)), holdouts=(0.2, 0.6, 1.0))
    for index in range(100):
        ledger.decide(experiment, HOLDOUT if index % 5 == 0 else int(index % 4 == 0), f"u{index}", START_MS + index)
        ledger.decide(experiment, index % 2, f"v{index}", START_MS + index, epoch=2)
    for index in range(10):
        ledger.decide(experiment, HOLDOUT, f"w{index}", START_MS + index, epoch=3)
    report = _load(ledger, tmp_path)
    assert list(report.assignments()["draws"]) == [60, 20, 50, 50, 0, 0]
    assert list(report.assignments()["expected_draws"]) == [60, 20, 50, 50, 0, 0]
    assert (report.srm().p_value, report.srm().fixed_horizon_p_value) == (1.0, 1.0)


def test_unit_that_was_held_out_first_is_no_draw_of_a_later_epoch(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER], epochs=((0.5, 0.5), (0.5, 0.5)), holdouts=(0.5, 0.0))
    for index in range(40):
        ledger.decide(experiment, HOLDOUT, f"u{index}", START_MS + index)
        # All that the holdout gives up goes to the arm that grows.
        ledger.decide(experiment, 1, f"u{index}", START_MS + 1000 + index, epoch=2)
        ledger.decide(experiment, index % 2, f"v{index}", START_MS + 2000 + index, epoch=2)
    report = _load(ledger, tmp_path)
    assert list(report.assignments()["draws"]) == [0, 0, 20, 20]
    assert [row.units for row in report.results] == [20, 60]


@pytest.mark.parametrize(("arm", "epoch"), [(0, FORCED), (1, FORCED), (HOLDOUT, 1), (HOLDOUT, FORCED)])
def test_what_no_arm_was_drawn_for_changes_no_number(tmp_path: Path, arm: int, epoch: int) -> None:
    with_it, without = flights(200), flights(200)
    # Units of their own, before, amid and after the others; and forced ones of a unit that has an arm.
    units = ["tester", "flight-0"] if epoch == FORCED else ["tester"]
    for day in (-1, 1, 20):
        for unit in units:
            key = with_it.decide(
                1, arm, unit, START_MS + day * DAY_MS, predictions=[0.9], epoch=epoch, fallback="timeout"
            )
            with_it.observe(key, "late", 0.0, label=True)
    (tmp_path / "without").mkdir()
    report, expected = _load(with_it, tmp_path), _load(without, tmp_path / "without")
    held_out = ("1 unit(s) were held out: the champion served them, and they are part of no comparison",)
    _equal(report.summary(), expected.summary())
    _equal(report.timeline(), expected.timeline())
    _equal(report.reliability(), expected.reliability())
    _equal(report.assignments(), expected.assignments())
    assert (report.srm(), report.verdict()) == (expected.srm(), expected.verdict())
    assert report.notes == expected.notes + (() if epoch == FORCED else held_out)


def test_broken_split_withholds_the_verdict(tmp_path: Path) -> None:
    ledger = flights(1500)
    lost = {row["id"] for row in ledger.decisions[1::2][:200]}
    ledger.decisions = [row for row in ledger.decisions if row["id"] not in lost]
    ledger.outcomes = [row for row in ledger.outcomes if row["decision_id"] not in lost]
    report = _load(ledger, tmp_path)
    assert report.srm().mismatch
    assert report.verdict().decision == "insufficient"
    treatment = report.summary().query("role == 'treatment'")
    assert treatment["reason"].str.contains("the split is broken").all()
    assert report.notes[0].startswith("the split is broken: sample ratio p = ")


def test_guardrail_takes_part_in_the_verdict(tmp_path: Path) -> None:
    ledger = flights(1500)
    guard = {**CLICK, "role": "guardrail", "margin": 0.01}
    document = json.loads(ledger.experiments[0]["document"])
    document["metrics"].append(guard)
    ledger.experiments[0]["document"] = json.dumps(document)
    for index, row in enumerate(ledger.decisions):
        if index % 4 == 0:
            ledger.observe(row["id"], "click", 1.0)
    verdict = _load(ledger, tmp_path).verdict()
    assert verdict.decision == "insufficient"
    assert "boosting has 0 ones" in verdict.summary


def test_timeline_adds_up_to_the_summary(rich_report: Report) -> None:
    report = rich_report
    for metric in ("brier", "click", "value-per-visit"):
        timeline = report.timeline(metric)
        rows = report.summary().query("metric == @metric").set_index("arm")
        counts = timeline.groupby("arm")["observations"].sum()
        assert counts.to_dict() == rows["observations"].drop("idle").to_dict()
        assert len(timeline["period"].unique()) > 5


def test_timeline_of_one_period_has_the_interval_of_the_mean(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([{**CLICK, "kind": "numeric"}])
    values = [1.0, 2.0, 4.0, 9.0]
    for index, value in enumerate(values):
        key = ledger.decide(experiment, 0, f"u{index}", START_MS + 2 * MINUTE_MS + index)
        ledger.observe(key, "click", value)
    timeline = _load(ledger, tmp_path).timeline()
    half = 1.959963984540054 * np.std(values, ddof=1) / 2
    assert len(timeline) == 1
    row = timeline.iloc[0]
    assert row["period"] == pd.Timestamp(START_MS + 2 * MINUTE_MS, unit="ms", tz="UTC")
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((4.0, 4.0 - half, 4.0 + half))


def test_reliability_compares_predictions_with_labels(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER])
    for index, (prediction, late) in enumerate([(0.1, 0), (0.14, 1), (0.19, 0), (0.95, 1), (1.0, 1)]):
        key = ledger.decide(experiment, 0, f"u{index}", START_MS + index, predictions=[prediction])
        ledger.observe(key, "late", late, label=True)
    bins = _load(ledger, tmp_path).reliability()
    assert list(bins["labels"]) == [3, 2]
    assert list(bins["predicted"]) == pytest.approx([0.43 / 3, 0.975])
    assert list(bins["observed"]) == pytest.approx([1 / 3, 1.0])
    wilson = stats.binomtest(1, 3).proportion_ci(0.95, method="wilson")
    assert (bins["low"][0], bins["high"][0]) == pytest.approx((wilson.low, wilson.high))


def test_reliability_needs_a_score_of_a_probability(rich: tuple[str, Path]) -> None:
    with pytest.raises(UnknownMetric, match=r"reliability needs a score .* metric 'click' is not one"):
        load(NAME, rich[0]).reliability("click")
    with pytest.raises(UnknownMetric, match=r"no metric 'nope'; its metrics: brier, log_loss"):
        load(NAME, rich[0]).timeline("nope")


def test_unknown_arm_names_the_treatments(rich: tuple[str, Path], rich_report: Report) -> None:
    assert rich_report.verdict("boosting").arm == "boosting"
    with pytest.raises(UnknownArm, match=r"no treatment arm 'control'; it has: boosting, forest, idle"):
        load(NAME, rich[0]).verdict("control")


def test_unknown_experiment_names_the_known_ones_and_the_source(rich: tuple[str, Path]) -> None:
    ledger, lake = rich
    known: list[tuple[str | Path, str]] = [(ledger, r"ledger .*turnout\.db"), (lake, r"lake .*logs")]
    for source, name in known:
        with pytest.raises(
            ExperimentNotFound, match=rf"^{name} has no experiment 'nope'; it has: {NAME}, empty, other\."
        ):
            analysis.load("nope", source)
    assert issubclass(ExperimentNotFound, AnalysisError)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"metrics": [{"kind": "median", "name": "m", "direction": "increase"}]}', "median"),
        ('{"metrics": []}', "has no metrics"),
        ("{", "cannot be analysed"),
    ],
)
def test_document_that_cannot_be_analysed_is_refused(tmp_path: Path, document: str, message: str) -> None:
    ledger = flights(20)
    ledger.experiments[0]["document"] = document
    with pytest.raises(InvalidExperiment, match=message):
        _load(ledger, tmp_path)


def test_experiment_with_one_arm_is_refused(tmp_path: Path) -> None:
    ledger = flights(20)
    del ledger.arms[1]
    with pytest.raises(InvalidExperiment, match=r"has 1 arm\(s\) in the ledger"):
        _load(ledger, tmp_path)


def test_table_that_is_lost_while_reading_is_a_clear_error(tmp_path: Path) -> None:
    lake = flights(200).write_lake(tmp_path)
    report = load(NAME, lake)
    for path in (lake / "logs" / "outcomes").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(UnreadableSource, match="cannot be read"):
        report.summary()
