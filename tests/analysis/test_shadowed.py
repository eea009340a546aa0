import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.errors import UnknownMetric
from analysis.report import Report, load
from analysis.shadowed import Shadow, compare_shadows
from analysis.statistics.paired import PairedSums, compare
from analysis.statistics.ratios import moments
from analysis.statistics.scores import score
from analysis.tables import shadows
from tests.analysis.ledgers import CLICK, DAY_MS, START_MS, Ledger
from tests.databases import BACKENDS, database
from tests.metrics import BRIER

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


def many_shadowed(seed: int = 3, gain: float = 0.5) -> Ledger:
    """Lists of one to five items of seventy units, some without labels; a better shadow and one that often fails."""
    generator = np.random.default_rng(seed)
    ledger = Ledger()
    error = {**BRIER, "name": "error", "score": "absolute_error", "role": "secondary"}
    experiment = ledger.add_experiment([BRIER, error])
    for number in range(200):
        truth = generator.uniform(size=int(generator.choice([1, 1, 2, 5])))
        served = np.clip(truth + generator.normal(0, 0.3, truth.size), 0, 1)
        key = ledger.decide(experiment, number % 2, f"u{number % 70}", START_MS + number, predictions=served.tolist())
        for item, late in enumerate(generator.uniform(size=truth.size) < truth):
            for again in range(int(generator.choice([0, 1, 1, 2]))):
                ledger.observe(key, "late", late ^ (again == 1), item=item, label=True, outcome_id=str(again))
        better = truth + (1 - gain) * (served - truth)
        show(ledger, key, [float(f"{value:.3g}") for value in better])
        show(ledger, key, None if generator.uniform() < 0.3 else better[::-1].tolist(), "flight-delay-tired@1")
    return ledger


def show(ledger: Ledger, key: bytes, predictions: list[float] | None, model: str = SHADOW) -> None:
    ledger.shadow_predictions.append(
        {
            "decision_id": key,
            "model": model,
            "predictions": None if predictions is None else json.dumps(predictions),
            "error": None if predictions else "RuntimeError: out of order",
            "latency_ms": 1.5 + key[-1] % 3,
            "recorded_ms": START_MS + 100,
        }
    )


def test_shadows_are_scored_on_the_labels_of_what_was_served(tmp_path: Path) -> None:
    url = shadowed().write_sqlite(tmp_path / "turnout.db")
    [row] = load("boosting-vs-logistic", url).shadow().to_dict("records")
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


def by_hand(ledger: Ledger, model: str, name: str, agree: Callable[[float, float], bool]) -> PairedSums:
    """The sums that the engine makes, from the rows."""
    decisions = {row["id"]: row for row in ledger.decisions}
    mine = [row for row in ledger.shadow_predictions if row["model"] == model]
    answers = {row["decision_id"]: json.loads(row["predictions"]) for row in mine if row["predictions"]}
    differences: dict[tuple[str, bytes, int], list[float]] = defaultdict(list)
    for row in ledger.outcomes:
        key, item, label = row["decision_id"], row["item"], row["value"]
        if key in answers:
            gap = score(name, answers[key][item], label) - score(name, row["prediction"], label)
            differences[decisions[key]["unit"], key, item].append(gap)
    pairs = [
        (decisions[key]["unit"], agree(mine, served))
        for key, answer in answers.items()
        for mine, served in zip(answer, json.loads(decisions[key]["predictions"]), strict=True)
    ]
    score_units, agreement_units = ([each[0] for each in rows] for rows in (list(differences), pairs))
    return PairedSums(
        of_units(score_units, [float(np.mean(gaps)) for gaps in differences.values()]),
        of_units(agreement_units, [float(agreed) for _, agreed in pairs]),
        errors=len(mine) - len(answers),
        decisions=len(mine),
    )


def of_units(units: list[str], values: list[float]) -> Any:
    numbers = np.unique(units, return_inverse=True)[1]
    return moments(numbers, np.array(values), np.ones(len(values)))


@contextmanager
def opened(ledger: Ledger, backend: str, folder: Path) -> Iterator[Report]:
    """The report of the ledger in a database, or in the lake."""
    with nullcontext("") if backend == "lake" else database(backend, folder) as url:
        source = ledger.write(url) if url else ledger.write_lake(folder)
        yield load("boosting-vs-logistic", source, now_ms=START_MS + DAY_MS)


@pytest.mark.parametrize("backend", [*BACKENDS, "lake"])
def test_engines_compare_as_rows_do(tmp_path: Path, backend: str) -> None:
    ledger = many_shadowed()
    cases: list[tuple[str, str, Callable[[float, float], bool]]] = [
        ("brier", "brier", lambda mine, served: (mine >= 0.5) == (served >= 0.5)),
        ("error", "absolute_error", lambda mine, served: abs(mine - served) <= 0.1 * max(mine, served)),
    ]
    with opened(ledger, backend, tmp_path) as report:
        for metric, name, agree in cases:
            for row in report.shadow(metric).to_dict("records"):
                sums = by_hand(ledger, row["model"], name, agree)
                expected = compare(sums, planned=10_000, alpha=0.05 / 2)
                assert (row["errors"], row["decisions"]) == (sums.errors, sums.decisions)
                assert (row["labels"], row["units"]) == (sums.score.b, sums.score.units)
                found = [row[column] for column in DIFFERENCE + AGREEMENT]
                agreement = [100 * each for each in expected.agreement]
                assert found == pytest.approx([*expected.difference, *agreement], rel=1e-9)
                assert row["difference"] == pytest.approx(row["shadow_mean"] - row["served_mean"], abs=1e-12)


DIFFERENCE = ["difference", "difference_low", "difference_high"]
AGREEMENT = ["agreement_percent", "agreement_low_percent", "agreement_high_percent"]


def judged(ledger: Ledger, folder: Path, planned: float = 70) -> dict[str, Shadow]:
    report = load("boosting-vs-logistic", ledger.write_sqlite(folder / "a.db"), now_ms=START_MS + DAY_MS)
    rows = compare_shadows(report._source, report._log, report.shadow_score, planned=planned)
    return {row.model: row for row in rows}


def test_a_better_shadow_is_called_so_with_its_numbers(tmp_path: Path) -> None:
    row = judged(many_shadowed(gain=1.0), tmp_path)[SHADOW]
    assert row.verdict == "better"
    assert row.difference_high < 0
    assert row.p_value < 0.025
    assert row.latency_ms == pytest.approx(2.5, abs=0.02)
    assert row.reason.startswith(f"{SHADOW} in the shadow lowers brier by 0.0")
    assert row.reason.endswith(f"agreed on {row.agreement_percent:.0f} %")


def test_a_shadow_that_changes_little_is_not_judged(tmp_path: Path) -> None:
    row = judged(many_shadowed(gain=0.0), tmp_path)[SHADOW]
    assert row.verdict == "insufficient"
    assert row.p_value > 0.025
    assert row.reason.startswith(f"not enough evidence: the change that {SHADOW} in the shadow would make to brier may")


def test_too_few_units_are_not_judged(tmp_path: Path) -> None:
    row = judged(shadowed(), tmp_path)[SHADOW]
    assert row.reason == (
        f"not enough evidence: {SHADOW} answered 8 units with a label for brier, and an interval needs 50"
    )
    assert (row.p_value, row.difference_high) == (1.0, np.inf)
    assert (row.error_percent, row.error_low_percent < 1.5, row.error_high_percent > 40) == (100 / 9, True, True)


def test_what_a_shadow_said_later_is_not_known_yet(tmp_path: Path) -> None:
    ledger = shadowed()
    for row in ledger.shadow_predictions[4:]:
        row["recorded_ms"] = START_MS + DAY_MS + 1
    assert judged(ledger, tmp_path)[SHADOW].decisions == 4
