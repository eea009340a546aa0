import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.contexts import value_of
from analysis.errors import UnknownField, UnknownMetric
from analysis.evidence import MINIMUM_UNITS
from analysis.experiment import read_experiment
from analysis.queries import log_of
from analysis.report import load
from analysis.segments import MISSING, OTHER, Segments, compare_segments
from analysis.source import Source, open_source
from analysis.split_check import SplitCheck
from tests.analysis.ledgers import DAY_MS, REVENUE, START_MS, Ledger
from tests.analysis.sources import in_sqlite, opened

NAME = "boosting-vs-logistic"
ALPHA = 0.05
SIZES = {"JFK": 300, "EWR": 220, "LGA": 150, "HPN": 40}
EFFECTS = {"JFK": 1.5, "EWR": 0.0, "LGA": -1.2, "HPN": 0.0}
AIRPORTS = [airport for airport, size in SIZES.items() for _ in range(size)]


def _ledger(
    airports: list[str], effect: Callable[[str], float], *, arms: int = 2, seed: int = 1, **changes: Any
) -> Ledger:
    """Units with one decision and one value each; the same number of units to every arm."""
    generator, ledger = np.random.default_rng(seed), Ledger()
    names = ("control", "boosting", "forest")[:arms]
    number = ledger.add_experiment([REVENUE], arms=names, epochs=((1 / arms,) * arms,), **changes)
    for unit, airport in enumerate(airports):
        arm = unit % arms
        at_ms = START_MS + unit
        key = ledger.decide(number, arm, f"u{unit}", at_ms, context={"origin": airport} if airport else {"tier": 1})
        ledger.observe(key, "revenue", generator.gamma(4.0) + (effect(airport) if arm == 1 else 0.0))
    return ledger


def _compared(source: Source, field: str = "origin", **changes: Any) -> Segments:
    experiment = read_experiment(source, NAME)
    log = log_of(source, experiment, START_MS + DAY_MS)
    return compare_segments(source, log, experiment, experiment.primary, field, **{"alpha": ALPHA, **changes})


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgresql"])
def test_every_segment_is_welch_s_test_of_its_units(tmp_path: Path, engine: str) -> None:
    ledger = _ledger(AIRPORTS, EFFECTS.__getitem__)
    values = [row["value"] for row in ledger.outcomes]
    units = [(airport, unit % 2, values[unit]) for unit, airport in enumerate(AIRPORTS)]
    tests, wholes = {}, []
    for airport in SIZES:
        control, treatment = ([value for *place, value in units if place == [airport, arm]] for arm in (0, 1))
        tests[airport] = stats.ttest_ind(treatment, control, equal_var=False)
        wholes.append(np.mean(treatment) - np.mean(control))
    with opened(engine, ledger, tmp_path) as source:
        found = _compared(source)
    compared = [row for row in found.rows if row.segment != "HPN"]
    assert [row.segment for row in found.rows] == list(SIZES)
    assert [row.difference for row in compared] == pytest.approx(wholes[:3], rel=1e-9)
    p_values = [test.pvalue for name, test in tests.items() if name != "HPN"]
    assert [row.p_value for row in compared] == pytest.approx(p_values, rel=1e-9)
    adjusted = stats.false_discovery_control(p_values)
    assert [row.adjusted_p_value for row in compared] == pytest.approx(adjusted.tolist(), rel=1e-9)
    for row in compared:
        interval = tests[row.segment].confidence_interval(row.confidence)
        assert (row.difference_low, row.difference_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert [row.verdict for row in found.rows] == ["better", "insufficient", "worse", "insufficient"]
    assert f"control where origin is HPN has 20 units with revenue, and an interval needs {MINIMUM_UNITS}" in (
        found.rows[3].reason
    )
    (spread,) = found.spreads
    assert spread.segments == 3
    assert found.judgement.startswith("the effect of boosting on revenue differs by origin (Cochran's Q = ")
    assert found.judgement.endswith("boosting is better in JFK and worse in LGA")
    assert found.frame().shape == (4, 18)


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_and_intervals_agree_with_the_adjusted_p_values(tmp_path: Path, seed: int) -> None:
    airports = [f"A{unit // 3 % 8}" for unit in range(960)]
    effects = dict(zip(sorted(set(airports)), np.random.default_rng(seed).choice([0.0, 0.7, 1.0], 8), strict=True))
    found = _compared(in_sqlite(_ledger(airports, effects.__getitem__, arms=3, seed=seed), tmp_path))
    assert len(found.rows) == 16
    assert {row.arm for row in found.rows} == {"boosting", "forest"}
    for row in found.rows:
        is_called = row.adjusted_p_value <= ALPHA
        assert (row.verdict != "insufficient") == is_called
        assert (row.difference_low > 0 or row.difference_high < 0) == is_called


def test_without_any_effect_the_sentence_says_so(tmp_path: Path) -> None:
    found = _compared(in_sqlite(_ledger([f"A{unit // 2 % 6}" for unit in range(600)], lambda _: 0.0), tmp_path))
    assert {row.verdict for row in found.rows} == {"insufficient"}
    assert "may be the same whatever origin is" in found.judgement
    assert found.judgement.endswith("read it over all units: no segment says by itself what boosting does")


def test_rare_values_are_one_segment_and_units_without_any_another(tmp_path: Path) -> None:
    common = [f"A{place}" for place in range(20) for _ in range(8)]
    rare = [f"B{place}" for place in range(40) for _ in range(2)]
    found = _compared(in_sqlite(_ledger([*common, *rare, *[""] * 70], lambda _: 0.0), tmp_path))
    assert [row.segment for row in found.rows] == [*(f"A{place}" for place in range(20)), OTHER, MISSING]
    assert [(row.control_units, row.units) for row in found.rows[-3:]] == [(4, 4), (40, 40), (35, 35)]
    assert [math.isnan(row.p_value) for row in found.rows[-3:]] == [True, False, False]


def test_segment_of_a_unit_is_that_of_its_first_decision(tmp_path: Path) -> None:
    ledger = _ledger(["JFK", "EWR"] * 40, lambda _: 0.0)
    for unit in range(80):
        key = ledger.decide(1, unit % 2, f"u{unit}", START_MS + 1000 + unit, context={"origin": "LGA"})
        ledger.observe(key, "revenue", 1.0)
    found = _compared(in_sqlite(ledger, tmp_path))
    assert [(row.segment, row.control_units + row.units) for row in found.rows] == [("JFK", 40), ("EWR", 40)]


CONTEXT = {
    "tier": 3,
    "rate": 1.5,
    "member": True,
    "nothing": None,
    "empty": "",
    "we.ird": "dot",
    "it's": 'say "hi" é',
    'a"b': "quote",
    "back\\": "slash\\",
    "é [0]": "tail, }",
    "$(x|y)*": ',"tier":4',
}


@pytest.mark.parametrize("engine", ["sqlite", "duckdb", "postgresql"])
def test_every_engine_finds_every_value_of_a_context(tmp_path: Path, engine: str) -> None:
    ledger = Ledger()
    number = ledger.add_experiment([REVENUE])
    ledger.decide(number, 0, "a", START_MS, context=CONTEXT)
    ledger.decide(number, 0, "b", START_MS + 1, context=dict(reversed(CONTEXT.items())))
    ledger.decide(number, 0, "c", START_MS + 2)
    with opened(engine, ledger, tmp_path) as source:
        rows = source.tables["decisions"]
        for field, value in {**CONTEXT, "none": None}.items():
            found = source.rows(rows.select("id", value=value_of(rows["context"], field)).order_by("id"))
            expected = None if value is None else json.dumps(value, ensure_ascii=False)
            assert [row["value"] for row in found] == [expected, expected, None], field


def test_field_that_no_unit_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    source = in_sqlite(_ledger(["JFK", "EWR", ""], lambda _: 0.0), tmp_path)
    with pytest.raises(UnknownField, match="began with 'orign' in its context; the latest have: origin, tier"):
        _compared(source, "orign")


@pytest.mark.parametrize(
    "changes",
    [
        {"allocation": {"kind": "thompson", "metric": "revenue"}},
        {"allocation": {"kind": "interleave", "method": "team_draft"}},
    ],
    ids=["bandit", "interleaved"],
)
def test_traffic_that_followed_outcomes_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UnknownMetric, match="no fixed-horizon test within segments"):
        _compared(in_sqlite(_ledger(["JFK", "EWR"], lambda _: 0.0, **changes), tmp_path))


def test_report_has_its_own_level_and_metric(tmp_path: Path) -> None:
    source = _ledger(AIRPORTS, EFFECTS.__getitem__).write_sqlite(tmp_path / "ledger.db")
    report = load(NAME, source, alpha=0.01, now_ms=START_MS + DAY_MS)
    found, expected = report.segments("origin"), _compared(open_source(source), alpha=0.01)
    assert found.judgement == expected.judgement
    assert found.frame().equals(expected.frame())


def test_broken_split_is_refused_in_every_segment(tmp_path: Path) -> None:
    found = _compared(in_sqlite(_ledger(AIRPORTS, EFFECTS.__getitem__), tmp_path), split=SplitCheck(1e-6, 10.0, 1e-6))
    assert {row.verdict for row in found.rows} == {"insufficient"}
    assert all("the split is broken" in text for text in (found.judgement, *(row.reason for row in found.rows)))


def test_single_segment_says_nothing_of_differences(tmp_path: Path) -> None:
    found = _compared(in_sqlite(_ledger(["JFK"] * 80, lambda _: 0.0), tmp_path))
    assert found.judgement == (
        "not enough evidence: boosting can be compared with control in 1 segment(s) of origin, and whether its effect "
        "differs takes 2"
    )
