from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.drifting import (
    BINS,
    compare_frames,
    compare_pairs,
    recent_inputs,
    recent_judged,
    recent_labels,
    recent_predictions,
)
from analysis.errors import UnknownMetric
from analysis.report import load
from analysis.statistics.drift import numeric_drift, stability_index
from tests.analysis.ledgers import CLICK, DAY_MS, START_MS, Ledger
from tests.databases import BACKENDS, database
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
MIDDLE_MS = START_MS + DAY_MS // 2


def shifted(shift: float = 0.3, count: int = 600) -> Ledger:
    """Boosting's predictions rise in the second half, labels and the control's stay; every fourth unit comes twice."""
    generator = np.random.default_rng(7)
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER])
    for number in range(count):
        is_late = number >= count // 2
        at_ms = START_MS + DAY_MS * number // (count - 1)
        for visit in range(1 + (number % 4 == 0)):
            value = float(np.clip(generator.beta(2, 5) + shift * is_late * (number % 2), 0, 1))
            key = ledger.decide(experiment, number % 2, f"u{number}", at_ms + visit, predictions=[value, 1.0])
            ledger.observe(key, "late", float(generator.uniform() < 0.3), label=True)
    return ledger


def first_predictions(ledger: Ledger, arm: int) -> tuple[list[float], list[float]]:
    """Of every unit, before and after."""
    first: dict[str, tuple[bool, float]] = {}
    for row in ledger.decisions:
        if row["arm"] == arm:
            value = float(row["predictions"].strip("[]").split(",")[0])
            first.setdefault(row["unit"], (row["decided_ms"] >= MIDDLE_MS, value))
    sides: tuple[list[float], list[float]] = ([], [])
    for is_late, value in first.values():
        sides[is_late].append(value)
    return sides


@pytest.mark.parametrize("backend", [*BACKENDS, "lake"])
def test_engines_count_what_rows_are(tmp_path: Path, backend: str) -> None:
    ledger = shifted()
    before, after = first_predictions(ledger, 1)
    edges = [-np.inf, *np.linspace(min(before), max(before), BINS + 1), np.inf]
    # An extreme of the reference belongs to the bin within.
    edges[-2] = np.nextafter(edges[-2], np.inf)
    expected = numeric_drift(*(np.histogram(side, edges)[0] for side in (before, after)))

    def check(source: str | Path) -> None:
        frame = load(NAME, source, now_ms=START_MS + 5 * DAY_MS).drift(MIDDLE_MS).frame().set_index("feature")
        found = frame.loc["prediction of boosting"]
        assert (found["reference_rows"], found["current_rows"]) == (150, 150)
        assert found["statistic"] == pytest.approx(expected.statistic, rel=1e-9)
        assert found["stability_index"] == pytest.approx(expected.stability_index, rel=1e-9)
        assert list(frame.index[frame["drifted"]]) == ["prediction of boosting"]
        assert frame.loc["label late", "reference_rows"] == 300

    if backend == "lake":
        check(ledger.write_lake(tmp_path))
    else:
        with database(backend, tmp_path) as url:
            check(ledger.write(url))


def test_the_sentence_names_what_drifted_or_what_came_nearest(tmp_path: Path) -> None:
    report = load(NAME, shifted().write_sqlite(tmp_path / "a.db"))
    found = report.drift()
    index = found.drifts.features["prediction of boosting"].stability_index
    assert found.reason == f"1 of 3 drifted: prediction of boosting (stability index {index:.2f})"
    same = load(NAME, shifted(0.0).write_sqlite(tmp_path / "b.db")).drift()
    assert same.found == ()
    assert same.reason.startswith("none of 3 drifted: the largest stability index is ")
    none = load(NAME, shifted().write_sqlite(tmp_path / "c.db")).drift(START_MS)
    assert none.reason == "not enough evidence: nothing has rows, and more than one value, on both sides"


def test_columns_of_two_frames() -> None:
    generator = np.random.default_rng(3)
    before = pd.DataFrame(
        {
            "distance": generator.normal(size=4000),
            "carrier": generator.choice(["AA", "UA", "WN"], 4000),
            "seats": generator.choice([100, 200], 4000),
            "gone": 1,
        }
    )
    after = before.assign(
        distance=before["distance"] + 0.5,
        carrier=before["carrier"].where(generator.uniform(size=4000) < 0.7, "B6"),
        seats=before["seats"].where(generator.uniform(size=4000) < 0.6),
    ).drop(columns="gone")
    found = compare_frames(before, after)
    assert set(found.found) == {"distance", "carrier", "seats is missing"}
    assert found.reason.startswith("3 of 4 drifted: ")
    drift = found.drifts.features["distance"]
    assert drift.statistic == pytest.approx(stats.ks_2samp(before["distance"], after["distance"]).statistic, abs=0.03)
    carriers = [[sum(side["carrier"] == name) for name in ("AA", "B6", "UA", "WN")] for side in (before, after)]
    assert found.drifts.features["carrier"].stability_index == pytest.approx(stability_index(*carriers))
    assert compare_frames(before, before).found == ()


def test_recent_inputs_have_a_row_per_unit(tmp_path: Path) -> None:
    report = load(NAME, shifted().write_sqlite(tmp_path / "a.db"))
    inputs = recent_inputs(report._source, report._log, most=50)
    assert list(inputs.columns) == ["distance"]
    assert len(inputs) == 50


def test_recent_predictions_are_of_one_model_and_labels_of_all(tmp_path: Path) -> None:
    ledger = shifted()
    report = load(NAME, ledger.write_sqlite(tmp_path / "a.db"))
    model = ledger.decisions[1]["served_model"]
    last = {row["unit"]: row for row in ledger.decisions}.values()
    expected = [float(row["predictions"].strip("[]").split(",")[0]) for row in last if row["served_model"] == model]
    found = recent_predictions(report._source, report._log, model)
    assert sorted(found["prediction"]) == pytest.approx(sorted(expected))
    labels = recent_labels(report._source, report._log, "late", most=100)
    assert (list(labels.columns), len(labels), set(labels["late"])) == (["late"], 100, {0.0, 1.0})
    nothing = recent_labels(report._source, report._log, "unheard of")
    judged = recent_judged(report._source, report._log, "late", model)
    assert sorted(judged["prediction"]) == pytest.approx(sorted(expected))
    assert judged["late"].isin([0, 1]).all()
    both = compare_pairs([(found, found), (labels, nothing.rename(columns={"unheard of": "late"}))])
    assert list(both.drifts.features) == ["prediction", "late"]
    assert both.found == ()


def test_labels_need_a_score(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add_experiment([CLICK])
    with pytest.raises(UnknownMetric, match="drift of labels needs a score"):
        load(NAME, ledger.write_sqlite(tmp_path / "a.db")).drift()
