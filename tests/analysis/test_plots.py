import json
from pathlib import Path

import pytest
import vl_convert

from analysis.rendering import change
from analysis.report import Report, load
from tests.analysis.ledgers import DAY_MS, START_MS, everything, flights

NAME = "boosting-vs-logistic"
MANY = everything(only=("brier", "click"))
CHARTS = ("summary", "lift", "timeline", "sample_ratio", "reliability", "allocation")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder = tmp_path_factory.mktemp("plots")
    clear, many = flights(1500).write_sqlite(folder / "clear.db"), MANY.write_sqlite(folder / "many.db")
    now_ms = START_MS + 5 * DAY_MS
    return {
        "clear": load(NAME, clear, now_ms=now_ms),
        "many": load(NAME, many, now_ms=now_ms),
        "empty": load("empty", many, now_ms=now_ms),
    }


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("name", ["clear", "many", "empty"])
def test_every_chart_can_be_drawn(reports: dict[str, Report], name: str, chart: str) -> None:
    specification = getattr(reports[name].plot, chart)().to_json()
    assert vl_convert.vegalite_to_png(specification).startswith(b"\x89PNG")


@pytest.mark.parametrize("chart", ["summary", "lift", "timeline"])
def test_title_states_the_finding(reports: dict[str, Report], chart: str) -> None:
    for name in ("clear", "many"):
        title = getattr(reports[name].plot, chart)().to_dict()["title"]
        assert " ".join(title["text"]) == reports[name].verdict().summary
        assert title["subtitle"][-1] == f"{NAME} on flight-delay, as of 2026-04-06 00:00 UTC"
    assert reports["clear"].verdict().summary.startswith("boosting lowers brier by ")
    assert reports["many"].verdict().summary.startswith("not enough evidence: ")


def test_lift_is_drawn_at_every_look_that_is_not_too_wide(reports: dict[str, Report]) -> None:
    looks = reports["clear"].contrast()
    drawn = max(reports["clear"].plot.lift().to_dict()["datasets"].values(), key=len)
    assert len(drawn) > 40
    assert drawn[-1]["lift_low_percent"] == looks["lift_low_percent"].iloc[-1]
    widths = [row["lift_high_percent"] - row["lift_low_percent"] for row in drawn]
    assert max(widths) <= 4 * (looks["lift_high_percent"] - looks["lift_low_percent"]).median()


def test_a_broken_split_is_the_title_of_its_chart(tmp_path: Path) -> None:
    ledger = flights(600)
    # Every second decision of boosting is lost.
    lost = {row["id"] for number, row in enumerate(ledger.decisions) if number % 4 == 3}
    ledger.decisions = [row for row in ledger.decisions if row["id"] not in lost]
    report = load(NAME, ledger.write_sqlite(tmp_path / "turnout.db"), now_ms=START_MS + 5 * DAY_MS)
    evidence = report.split_evidence()
    assert evidence["p_value"].is_monotonic_decreasing
    assert evidence["p_value"].iloc[-1] == report.srm().p_value < 0.001
    assert evidence["draws"].iloc[-1] == 450
    title = " ".join(report.plot.sample_ratio().to_dict()["title"]["text"])
    assert title.startswith("The split is broken: arms cannot be compared (p = ")
    assert report.verdict().summary.startswith("not enough evidence: the split is broken")


def test_title_of_reliability_states_the_gap_per_arm(reports: dict[str, Report]) -> None:
    bins = reports["clear"].reliability()
    gap = (bins["predicted"] - bins["observed"]).abs() * bins["labels"]
    control = 100 * gap[bins["arm"] == "control"].sum() / bins["labels"][bins["arm"] == "control"].sum()
    title = " ".join(reports["clear"].plot.reliability().to_dict()["title"]["text"])
    assert title.startswith(f"Predictions miss the observed frequency on average by {control:.1f} points (control), ")
    empty = " ".join(reports["empty"].plot.reliability().to_dict()["title"]["text"])
    assert empty == "not enough evidence: no prediction has a label"


def test_charts_embed_aggregates_only(reports: dict[str, Report]) -> None:
    for chart in CHARTS:
        text = getattr(reports["clear"].plot, chart)().to_json()
        datasets = json.loads(text)["datasets"]
        assert sum(len(rows) for rows in datasets.values()) < 300
        assert "flight-17" not in text


def test_arms_keep_their_color_and_shape_across_charts(reports: dict[str, Report]) -> None:
    scales = []
    for chart in (reports["many"].plot.timeline(), reports["many"].plot.reliability()):
        encodings = [layer["encoding"] for layer in chart.to_dict()["layer"]]
        scales.append({json.dumps(each["color"]["scale"]) for each in encodings if "color" in each})
    assert scales[0] == scales[1]
    (scale,) = scales[0]
    assert json.loads(scale)["domain"] == ["control", "boosting", "forest", "idle"]
    assert len(set(json.loads(scale)["range"])) == 4


def test_change_is_written_at_its_interval(reports: dict[str, Report]) -> None:
    (rows,) = reports["many"].plot.summary().to_dict()["datasets"].values()
    texts = {(row["metric"], row["arm"]): row["text"] for row in rows}
    click = next(row for row in reports["many"].results if (row.metric, row.arm) == ("click", "forest"))
    assert texts["click", "forest"] == change(click)
    assert texts["click", "idle"] == "not enough evidence"
