import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ibis
import msgspec
import numpy as np
import psycopg
import pytest

from analysis.errors import InvalidExperiment
from analysis.experiment import AnyMetric, RatioMetric, ScoreMetric, read_experiment
from analysis.queries import log_of, observations, per_unit, score_expression
from analysis.source import Source, open_source
from analysis.statistics.scores import SCORES, score
from router.assignment.epochs import HOLDOUT
from router.decision_id import FORCED
from tests.analysis.ledgers import CLICK, DAY_MS, MINUTE_MS, RATIO, REVENUE, START_MS, Ledger, everything
from tests.databases import database
from tests.metrics import BRIER

Sums = dict[tuple[int, str], tuple[float, float, int]]
NOW_MS = START_MS + int(1.2 * DAY_MS)


def _open(ledger: Ledger, path: Path) -> Iterator[Source]:
    yield open_source(ledger.write_sqlite(path / "turnout.db"))
    yield open_source(ledger.write_lake(path / "lake"))


def _per_unit(source: Source, metric: str, now_ms: int) -> Sums:
    experiment = read_experiment(source, "boosting-vs-logistic")
    log = log_of(source, experiment, now_ms)
    rows = source.rows(per_unit(observations(log, experiment.metric(metric))))
    return {(row["arm"], row["unit"]): (row["numerator"], row["denominator"], row["observations"]) for row in rows}


def _close(actual: Sums, expected: Sums) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[key] == pytest.approx(expected[key], rel=1e-12) for key in expected
    )


@contextmanager
def _backend(engine: str, folder: Path) -> Iterator[Any]:
    if engine != "postgresql":
        yield getattr(ibis, engine).connect()
        return
    with (
        database(engine, folder) as url,
        closing(psycopg.connect(url.replace("+psycopg", ""), autocommit=True)) as connection,
    ):
        yield ibis.postgres.from_connection(connection)


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgresql"])
@pytest.mark.parametrize("name", sorted(SCORES))
def test_score_expression_equals_the_score(engine: str, name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    prediction = np.concatenate([generator.uniform(size=200), [0.0, 1.0, 0.0, 1.0, 0.5, 0.5, 1e-14]])
    label = np.concatenate([generator.integers(0, 2, 200), [0, 1, 1, 0, 0, 1, 1]]).astype(np.float64)
    rows = ibis.memtable({"order": range(len(label)), "prediction": prediction.tolist(), "label": label.tolist()})
    with _backend(engine, tmp_path) as backend:
        table = backend.create_table("scored", rows)
        expression = table.select("order", score=score_expression(name, table["prediction"], table["label"]))
        scores = [row["score"] for row in expression.order_by("order").to_pyarrow().to_pylist()]
    assert scores == pytest.approx(score(name, prediction, label).tolist(), rel=1e-12, abs=1e-15)


def test_score_expression_of_an_unknown_score_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match="'hinge' cannot be analysed"):
        score_expression("hinge", ibis.literal(0.5), ibis.literal(1.0))


def test_every_metric_equals_a_loop_over_the_rows(tmp_path: Path) -> None:
    ledger = everything()
    document = json.loads(ledger.experiments[0]["document"])
    for source in _open(ledger, tmp_path):
        for metric in document["metrics"]:
            decoded = msgspec.convert(metric, AnyMetric)
            expected = _by_loop(ledger, decoded)
            assert len(expected) > 90, decoded.name
            assert _close(_per_unit(source, decoded.name, NOW_MS), expected), decoded.name


def _by_loop(ledger: Ledger, metric: AnyMetric) -> Sums:
    """The definition of the module's docstring in plain Python."""
    sums: Sums = defaultdict(lambda: (0.0, 0.0, 0))
    received = defaultdict(list)
    for outcome in ledger.standing(NOW_MS):
        received[outcome["decision_id"]].append(outcome)
    for decision in ledger.decisions:
        if decision["experiment_id"] != 1 or decision["decided_ms"] > NOW_MS:
            continue
        if decision["arm"] == HOLDOUT or decision["epoch"] == FORCED:
            continue
        for numerator, denominator in _observed(metric, decision, received[decision["id"]]):
            key = decision["arm"], decision["unit"]
            before = sums[key]
            sums[key] = before[0] + numerator, before[1] + denominator, before[2] + 1
    return dict(sums)


def _observed(
    metric: AnyMetric, decision: dict[str, Any], outcomes: list[dict[str, Any]]
) -> Iterator[tuple[float, float]]:
    closes_ms = decision["decided_ms"] + 1000 * metric.window_s
    outcomes = [row for row in outcomes if not (metric.ignores_late and row["occurred_ms"] > closes_ms)]
    if isinstance(metric, RatioMetric):
        posted = [row for row in outcomes if row["metric"] in {metric.numerator, metric.denominator}]
        if posted:
            yield (
                sum(row["value"] for row in posted if row["metric"] == metric.numerator),
                sum(row["value"] for row in posted if row["metric"] == metric.denominator),
            )
        return
    name = metric.label if isinstance(metric, ScoreMetric) else metric.name
    default = None if isinstance(metric, ScoreMetric) else metric.default
    if default is not None and closes_ms > NOW_MS:
        return
    for item, prediction in enumerate(json.loads(decision["predictions"])):
        values = [row["value"] for row in outcomes if row["metric"] == name and row["item"] == item]
        if isinstance(metric, ScoreMetric) and values:
            yield sum(score(metric.score, prediction, value) for value in values) / len(values), 1.0
        elif values:
            yield max(values) if type(metric).__name__ == "BinaryMetric" else sum(values), 1.0
        elif default is not None:
            yield default, 1.0


def test_default_counts_only_when_the_window_has_closed(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([CLICK])
    hour = 60 * MINUTE_MS
    clicked = ledger.decide(experiment, 0, "clicked", START_MS)
    ledger.observe(clicked, "click", 1.0, delay_ms=hour)
    too_late = ledger.decide(experiment, 0, "too-late", START_MS)
    ledger.observe(too_late, "click", 1.0, delay_ms=hour + 1)
    ledger.decide(experiment, 1, "silent", START_MS)
    young = ledger.decide(experiment, 1, "young", START_MS + 1)
    ledger.observe(young, "click", 1.0)
    matured = {(0, "clicked"): (1.0, 1.0, 1), (0, "too-late"): (0.0, 1.0, 1), (1, "silent"): (0.0, 1.0, 1)}
    for source in _open(ledger, tmp_path):
        assert _per_unit(source, "click", START_MS + hour - 1) == {}
        assert _per_unit(source, "click", START_MS + hour) == matured
        assert _per_unit(source, "click", START_MS + hour + 1) == {**matured, (1, "young"): (1.0, 1.0, 1)}


def test_list_decision_has_one_observation_per_item(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([CLICK, {**REVENUE, "role": "secondary"}])
    key = ledger.decide(experiment, 0, "a", START_MS, predictions=[0.1, 0.2, 0.3])
    ledger.observe(key, "click", 1.0, item=1)
    ledger.observe(key, "revenue", 2.0, item=1, outcome_id="first")
    ledger.observe(key, "revenue", 3.0, item=1, outcome_id="second")
    ledger.observe(key, "revenue", 7.0, item=2)
    for source in _open(ledger, tmp_path):
        assert _per_unit(source, "click", NOW_MS) == {(0, "a"): (1.0, 3.0, 3)}
        assert _per_unit(source, "revenue", NOW_MS) == {(0, "a"): (12.0, 2.0, 2)}


def test_outcome_is_unknown_before_it_is_received(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE])
    key = ledger.decide(experiment, 0, "a", START_MS)
    ledger.observe(key, "revenue", 5.0, delay_ms=10)
    for source in _open(ledger, tmp_path):
        assert _per_unit(source, "revenue", START_MS + 9) == {}
        assert _per_unit(source, "revenue", START_MS + 10) == {(0, "a"): (5.0, 1.0, 1)}


def test_highest_version_counts_from_when_it_was_received(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE])
    key = ledger.decide(experiment, 0, "a", START_MS)
    ledger.observe(key, "revenue", 5.0, delay_ms=10)
    # in the order 3, 1, 2: what comes late may be old news
    ledger.observe(key, "revenue", None, version=3, delay_ms=10, received_after_ms=10)
    ledger.observe(key, "revenue", 7.0, version=1, delay_ms=10, received_after_ms=20)
    ledger.observe(key, "revenue", 8.0, version=2, delay_ms=10, received_after_ms=30)
    ledger.observe(key, "revenue", 9.0, version=4, delay_ms=10, received_after_ms=40)
    ledger.observe(key, "revenue", 100.0, outcome_id="another", delay_ms=10, received_after_ms=50)
    expected = {9: {}, 19: {(0, "a"): (5.0, 1.0, 1)}, 20: {}, 30: {}, 40: {}, 50: {(0, "a"): (9.0, 1.0, 1)}}
    for source in _open(ledger, tmp_path):
        assert {after: _per_unit(source, "revenue", START_MS + after) for after in expected} == expected
        assert _per_unit(source, "revenue", START_MS + 60) == {(0, "a"): (109.0, 1.0, 1)}


def test_correction_alone_counts_before_what_it_corrects_comes(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE])
    key = ledger.decide(experiment, 0, "a", START_MS)
    ledger.observe(key, "revenue", 7.0, version=2)
    ledger.observe(key, "revenue", 5.0, received_after_ms=1000)
    for source in _open(ledger, tmp_path):
        assert _per_unit(source, "revenue", START_MS + 1000) == {(0, "a"): (7.0, 1.0, 1)}
        assert _per_unit(source, "revenue", NOW_MS) == {(0, "a"): (7.0, 1.0, 1)}


@pytest.mark.parametrize(
    ("metric", "late", "expected"),
    [
        (REVENUE, None, (7.0, 1.0, 1)),
        (REVENUE, "count", (7.0, 1.0, 1)),
        (REVENUE, "ignore", None),
        (REVENUE | {"default": 2.0}, None, (2.0, 1.0, 1)),
        (REVENUE | {"default": 2.0}, "count", (7.0, 1.0, 1)),
        (REVENUE | {"default": 2.0}, "ignore", (2.0, 1.0, 1)),
        (RATIO | {"numerator": "revenue", "role": "primary"}, "count", (7.0, 0.0, 1)),
        (RATIO | {"numerator": "revenue", "role": "primary"}, "ignore", None),
        (BRIER | {"label": "revenue"}, "count", (42.25, 1.0, 1)),
        (BRIER | {"label": "revenue"}, "ignore", None),
    ],
)
def test_late_outcome_counts_where_the_metric_says_so(
    tmp_path: Path, metric: dict[str, Any], late: str | None, expected: tuple[float, float, int] | None
) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([metric | {"late": late, "window_s": 60}])
    key = ledger.decide(experiment, 0, "a", START_MS)
    ledger.observe(key, "revenue", 7.0, delay_ms=60_001, label=metric["kind"] == "score")
    for source in _open(ledger, tmp_path):
        assert _per_unit(source, metric["name"], NOW_MS) == ({} if expected is None else {(0, "a"): expected})


@pytest.mark.parametrize("is_there", [False, True])
def test_outcome_that_is_not_counted_counts_for_nothing(tmp_path: Path, *, is_there: bool) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE, RATIO, BRIER | {"role": "secondary"}])
    key = ledger.decide(experiment, 0, "a", START_MS)
    for metric in ("revenue", "value", "late"):
        ledger.observe(key, metric, 1.0, label=metric == "late", counted=False)
    if not is_there:
        ledger.decisions.clear()
    source = open_source(ledger.write_sqlite(tmp_path / "turnout.db"))
    assert [_per_unit(source, metric, NOW_MS) for metric in ("revenue", "value-per-visit", "brier")] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"low": 0}, [0, 11, 90]), ({"high": 50}, [-4, 11, 50]), ({"low": 0, "high": 10}, [0, 10, 10])],
)
def test_value_of_an_item_is_pulled_to_the_limits_once_it_is_added_up(
    tmp_path: Path, limits: dict[str, float], expected: list[float]
) -> None:
    ledger = Ledger()
    number = ledger.add_experiment([REVENUE | {"winsorise": limits}])
    for unit, values in enumerate([(-4.0,), (-1.0, 12.0), (30.0, 60.0)]):
        decision = ledger.decide(number, 0, str(unit), START_MS + unit)
        for index, value in enumerate(values):
            ledger.observe(decision, "revenue", value, outcome_id=str(index))
    for source in _open(ledger, tmp_path):
        found = _per_unit(source, "revenue", NOW_MS)
        assert [found[0, unit][0] for unit in "012"] == expected


def test_ratio_counts_a_denominator_without_numerator(tmp_path: Path) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([REVENUE, RATIO])
    for unit, value in (("a", 4.0), ("b", None)):
        key = ledger.decide(experiment, 0, unit, START_MS)
        ledger.observe(key, "visit", 1.0)
        if value is not None:
            ledger.observe(key, "value", value)
    ledger.decide(experiment, 0, "c", START_MS)
    for source in _open(ledger, tmp_path):
        expected = {(0, "a"): (4.0, 1.0, 1), (0, "b"): (0.0, 1.0, 1)}
        assert _per_unit(source, "value-per-visit", NOW_MS) == expected
