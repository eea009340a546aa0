import json
import re
from pathlib import Path

import pytest

from analysis.html import page
from analysis.report import load
from analysis.tables import tables
from tests.analysis.ledgers import CLICK, START_MS, Ledger, flights

NAME = "boosting-vs-logistic"


def specifications(html: str) -> list[str]:
    return re.findall(r'vegaEmbed\("#chart-\d", (\{.*\}), \{actions: false\}\);</script>', html)


def _without_scripts(html: str) -> str:
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_page_shows_verdict_table_and_charts(tmp_path: Path) -> None:
    report = load(NAME, flights(1500).write_sqlite(tmp_path / "turnout.db"))
    html = page(report)
    assert f"<b>advance: boosting</b><br>{report.verdict().summary}</p>" in html
    assert _without_scripts(html).count("<tr>") == sum(1 + len(table.rows) for table in tables(report))
    charts = [json.loads(text) for text in specifications(html)]
    assert [each["title"]["text"][0][:8] for each in charts] == [
        *["boosting"] * 3,
        "The spli",
        "Predicti",
    ]


def test_page_loads_nothing_from_the_network(tmp_path: Path) -> None:
    html = page(load(NAME, flights(100).write_sqlite(tmp_path / "turnout.db")))
    # Scripts stand in the page, and beside them nothing names an address.
    assert html.count("<script>") == html.count("</script>") == 1 + len(specifications(html))
    assert re.findall(r"<script |src=|href=|url\(|@import|https?:", _without_scripts(html)) == []
    addresses = {address for text in specifications(html) for address in re.findall(r"https?:[^\"]*", text)}
    assert {address.rpartition("/")[0] for address in addresses} == {"https://vega.github.io/schema/vega-lite"}


def test_page_without_probabilities_leaves_reliability_out(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.add_experiment([CLICK])
    assert len(specifications(page(load(NAME, ledger.write_sqlite(tmp_path / "turnout.db"))))) == 4


@pytest.mark.parametrize("hostile", ["</script><script>alert(1)</script>", "<b>&amp;"])
def test_page_escapes_what_the_ledger_says(tmp_path: Path, hostile: str) -> None:
    ledger = Ledger()
    experiment = ledger.add_experiment([CLICK | {"name": hostile}], name=hostile, arms=("control", hostile))
    ledger.decide(experiment, 0, "a", START_MS)
    html = page(load(hostile, ledger.write_sqlite(tmp_path / "turnout.db")))
    assert hostile not in html
    assert json.loads(specifications(html)[0])["title"]["subtitle"][0].startswith(hostile)
