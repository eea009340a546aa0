import json
from pathlib import Path

import numpy as np
import pytest

from analysis.errors import UnknownMetric
from analysis.report import load
from analysis.tables import shadows
from tests.analysis.ledgers import BRIER, CLICK, START_MS, Ledger
from tests.databases import BACKENDS, database

SHADOW = "flight-delay-forest@1"


def shadowed() -> Ledger:
    """Ten decisions of two items; a shadow saw nine of them and failed at one; the second item's label is missing."""
    ledger = Ledger()
    experiment = ledger.add_experiment([BRIER, {**CLICK, "role": "secondary"}])
    for number in range(10):
        key = ledger.decide(experiment, number % 2, f"u{number}", START_MS + number, predictions=[0.5, 0.9])
        ledger.observe(key, "late", 1.0, label=True)
        if number < 9:
            show(ledger, key, None if number == 8 else [number / 10, 0.0])
    outside = ledger.decide(None, None, "guest", START_MS, epoch=None)
    ledger.observe(outside, "late", 1.0, label=True)
    show(ledger, outside, [0.0])
    return ledger


def show(ledger: Ledger, key: bytes, predictions: list[float] | None, model: str = SHADOW) -> None:
    ledger.shadow_predictions.append(
        {
            "decision_id": key,
            "model": model,
            "predictions": None if predictions is None else json.dumps(predictions),
            "error": None if predictions else "RuntimeError: out of order",
            "latency_ms": 1.5,
            "recorded_ms": START_MS + 100,
        }
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_shadows_are_scored_on_the_labels_of_what_was_served(tmp_path: Path, backend: str) -> None:
    with database(backend, tmp_path) as url:
        [row] = load("boosting-vs-logistic", shadowed().write(url)).shadow().to_dict("records")
    assert (row["model"], row["decisions"], row["errors"], row["labels"]) == (SHADOW, 9, 1, 8)
    assert row["served_mean"] == pytest.approx(0.25)
    assert row["shadow_mean"] == pytest.approx(np.mean([(1 - number / 10) ** 2 for number in range(8)]))


def test_scores_of_repeated_labels_are_averaged(tmp_path: Path) -> None:
    ledger = shadowed()
    ledger.observe(ledger.decisions[0]["id"], "late", 0.0, label=True, outcome_id="again")
    [row] = load("boosting-vs-logistic", ledger.write_lake(tmp_path)).shadow().to_dict("records")
    assert row["labels"] == 8
    assert row["shadow_mean"] == pytest.approx(np.mean([0.5, *((1 - number / 10) ** 2 for number in range(1, 8))]))


def test_shadow_without_labels_has_no_score(tmp_path: Path) -> None:
    ledger = shadowed()
    ledger.outcomes.clear()
    loaded = load("boosting-vs-logistic", ledger.write_lake(tmp_path))
    [row] = loaded.shadow().to_dict("records")
    assert (row["decisions"], row["labels"]) == (9, 0)
    assert np.isnan([row["served_mean"], row["shadow_mean"]]).all()
    with pytest.raises(UnknownMetric, match="'click' is none"):
        loaded.shadow("click")


def test_shadows_of_an_experiment_without_scores_are_counted(tmp_path: Path) -> None:
    ledger = shadowed()
    document = json.loads(ledger.experiments[0]["document"])
    ledger.experiments[0]["document"] = json.dumps(document | {"metrics": [CLICK]})
    loaded = load("boosting-vs-logistic", ledger.write_sqlite(tmp_path / "turnout.db"))
    assert shadows(loaded) == (("shadow", "decisions seen", "errors"), ((SHADOW, "9 of 10", "1"),))


def test_no_shadows_make_no_rows(tmp_path: Path) -> None:
    ledger = shadowed()
    ledger.shadow_predictions.clear()
    assert load("boosting-vs-logistic", ledger.write_lake(tmp_path)).shadow().empty
