import json
from typing import Any

import msgspec
import pytest

from analysis.simulation_charts import drawing, page_of, picture_of
from router.simulation.rehearsing import Effort, options, rehearse
from tests.router.simulations import even, plan, setting

NAMES = ("control", "new", "newer")
ARMS = {name: {"probability": 0.1 + 0.1 * number} for number, name in enumerate(NAMES)}


def _content(document: Any, *, against: tuple[Any, ...] = (), runs: int = 3) -> dict[str, Any]:
    result = rehearse(options(setting(document, 0.3, 15), against), Effort(runs), alpha=0.05)
    content: dict[str, Any] = msgspec.to_builtins(result)
    return content


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    return _content(plan(ARMS), against=("split", "top-two"))


def _titles(content: dict[str, Any]) -> list[str]:
    return [" ".join(chart["title"]["text"]) for chart in drawing(content).to_dict()["vconcat"]]


def test_titles_state_what_was_found(compared: dict[str, Any]) -> None:
    regret, thompson, top_two, sure = _titles(compared)
    assert regret.startswith("thompson loses ")
    assert "; even split " in regret
    assert all(f", {name} " in regret for name in ("top-two (defaults)", "equal shares"))
    assert thompson.startswith("thompson: newer has the largest share at the end in 100%")
    assert top_two.startswith("top-two (defaults): ")
    assert sure.startswith("When the posterior was first sure of an arm, and how often of a wrong one: thompson ")


def test_a_split_alone_has_no_chart_of_shares() -> None:
    assert len(_titles(_content(plan(ARMS, allocation=even(*NAMES))))) == 2


def test_a_single_run_has_no_error() -> None:
    assert "±" not in _titles(_content(plan(ARMS), runs=1))[0]


def test_lines_end_with_the_figures_of_the_table(compared: dict[str, Any]) -> None:
    specification = drawing(compared).to_dict()
    values = [row for rows in specification["datasets"].values() for row in rows]
    for each in compared["allocations"]:
        last = [row["regret"] for row in values if row.get("allocation") == each["allocation"] and "low" in row]
        assert last[-1] == pytest.approx(each["regret"]["mean"])
    assert {row["arm"] for row in values if "arm" in row} == set(NAMES)


def test_a_legend_shows_lines_as_strong_as_they_are_drawn(compared: dict[str, Any]) -> None:
    assert '"symbolOpacity": 1' in json.dumps(drawing(compared).to_dict())


def test_a_picture_is_a_png(compared: dict[str, Any]) -> None:
    assert picture_of(compared).startswith(b"\x89PNG")


def test_a_page_needs_no_network_and_escapes_what_it_is_given(compared: dict[str, Any]) -> None:
    hostile = {**compared, "experiment": "</script><b>", "metric": "</script>", "notes": ["a < b"]}
    page = page_of(hostile, ["x & y"], [("equal < arms", ["thompson"], [("re<gret", ("1 ± 2",))])])
    assert "<title>Rehearsal of &lt;/script&gt;&lt;b&gt;</title>" in page
    assert "<p>x &amp; y</p>" in page
    assert "<li>a &lt; b</li>" in page
    assert "<tr><th>equal &lt; arms</th><th>thompson</th></tr>" in page
    assert "<tr><td>re&lt;gret</td><td>1 ± 2</td></tr>" in page
    assert page.count("</script>") == 2
    assert "src=" not in page.partition("<body>")[2]
