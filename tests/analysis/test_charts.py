"""Charts of what is not in every report; those of the others are in test_plots.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert

from analysis.report import Report, load
from tests.analysis import test_posterior, test_shadowed, test_what_if
from tests.analysis.ledgers import DAY_MS, START_MS, Ledger

BY_TIER: dict[Any, Any] = {"vip": {"boosting": 1.0}, None: {"control": 1.0}}


def report_of(ledger: Ledger, folder: Path) -> Report:
    return load("boosting-vs-logistic", ledger.write_sqlite(folder / "a.db"), now_ms=START_MS + DAY_MS)


def drawn(chart: Any) -> dict[str, Any]:
    """The chart's specification, after it was drawn."""
    specification: dict[str, Any] = chart.to_dict()
    assert vl_convert.vegalite_to_png(json.dumps(specification)).startswith(b"\x89PNG")
    return specification


def title(specification: dict[str, Any]) -> str:
    return " ".join(specification["title"]["text"])


def rows_of(specification: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in specification["datasets"].values() for row in rows]


@pytest.mark.parametrize("observed", [True, False])
def test_posteriors(tmp_path: Path, observed: bool) -> None:
    ones, sizes = ((30, 45), (100, 100)) if observed else ((0, 0), (0, 0))
    report = report_of(test_posterior.clicks(ones, sizes, allocation=test_posterior.THOMPSON), tmp_path)
    specification = drawn(report.plot.posteriors())
    assert title(specification) == report.posteriors().reason
    chances = [row["chance"] for row in rows_of(specification) if "chance" in row]
    expected = [f"best with {arm.best_percent:.1f} %" for arm in report.posteriors().arms]
    assert chances == expected
    assert len(chances) == 2 * observed


def test_shadows(tmp_path: Path) -> None:
    report = report_of(test_shadowed.many_shadowed(), tmp_path)
    specification = drawn(report.plot.shadow())
    assert title(specification) == report.shadow()["reason"].iloc[0]
    texts = {(row["model"], row["agreement_text"]) for row in rows_of(specification) if "model" in row}
    shadows = report.shadow()
    assert texts == {(row.model, f"{row.agreement_percent:.0f} %") for row in shadows.itertuples()}


def test_shadows_of_which_nothing_can_be_said(tmp_path: Path) -> None:
    ledger = test_shadowed.shadowed()
    assert "an interval needs 50" in title(drawn(report_of(ledger, tmp_path).plot.shadow()))
    ledger.shadow_predictions.clear()
    (tmp_path / "none").mkdir()
    assert title(drawn(report_of(ledger, tmp_path / "none").plot.shadow())) == "no shadow has seen a decision"


def test_other_policies(tmp_path: Path) -> None:
    report = report_of(test_what_if.clicks(), tmp_path)
    found = report.off_policy(BY_TIER, field="tier")
    estimates, weights = drawn(report.plot.off_policy(found)), drawn(report.plot.off_policy_weights(found))
    assert title(estimates) == found.reason
    size = found.overlap.effective_sample_size
    assert title(weights).startswith(f"The log covers the policy by tier: effective sample size {size:.0f}, with a ")
    bars = [row for row in rows_of(weights) if "observations" in row]
    assert sum(row["observations"] for row in bars) == 1080
    assert np.isclose(bars[-1]["high"], 5)
    unseen = report.off_policy({"boosting": 1.0}, "revenue")
    for chart in (report.plot.off_policy(unseen), report.plot.off_policy_weights(unseen)):
        assert title(drawn(chart)) == "no overlap: no decision has an outcome of revenue yet"
