"""`turnout demo`, as `make demo` runs it, in a folder of its own; then again."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from nbclient import NotebookClient
from sqlalchemy import create_engine, func, select

import analysis
from router.ledger import schema
from tests.system.processes import Router, free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

FLIGHTS = 600
NOTEBOOKS = Path(__file__).parents[2] / "analysis" / "notebooks"
PICTURES = {
    "01-first-experiment": 4,
    "02-reading-a-bandit": 4,
    "03-shadow-to-champion": 1,
    "04-interleaving": 2,
    "05-what-if": 2,
    "06-drift-and-retraining": 2,
    "07-planning-with-the-simulator": 1,
}
"""Charts of each notebook; whatever was found, none is left out."""


def demo(folder: Path, port: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "router", "demo", "--once", "--flights", str(FLIGHTS)],
        cwd=folder,
        env={**os.environ, "TURNOUT_PORT": str(port), "DAGSTER_HOME": str(folder / "dagster")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_demo_runs_the_whole_loop_and_then_retrains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    first, second = (" ".join(demo(tmp_path, port).split()) for _ in range(2))
    assert "materialized 39 stale assets" in first
    assert "everything is up to date: nothing to train" in second
    for scene in ("flights of May", "flights of June", "travellers in May"):
        sent = f"{scene}: 600 requests, 600 decisions; "
        assert sent in first
        assert ": 0 accepted, " in second.split(sent)[1].split("rejected")[0]
    assert re.search(r"[\d,]+ decisions re-derived, each as it was logged", first)
    for told in (first, second):
        assert_the_story(told)
    for name in ("boosting-vs-logistic", "four-delay-models"):
        assert f"{name} on endpoint flight-delay" in first
    assert "flight-delay-forest@1 600 of 600 0 " in first
    assert "boosting-vs-base-rate on endpoint flight-choice" in first
    engine = create_engine(f"sqlite:///{tmp_path}/var/turnout.db")
    with engine.connect() as connection:
        decisions, shadows = (
            connection.execute(select(func.count()).select_from(table).where(condition)).scalar()
            for table, condition in (
                (schema.decisions, schema.decisions.c.endpoint != "flight-season"),
                (schema.shadow_predictions, schema.shadow_predictions.c.model == "flight-delay-forest@1"),
            )
        )
    engine.dispose()
    assert (decisions, shadows) == (3 * FLIGHTS, FLIGHTS)
    sources = (str(tmp_path / "var" / "lake"), f"sqlite:///{tmp_path}/var/turnout.db")
    for source in sources:
        primary = analysis.load("boosting-vs-logistic", source).summary().query("metric == 'brier'")
        assert primary["decisions"].sum() == FLIGHTS
        assert FLIGHTS * 0.9 < primary["observations"].sum() <= FLIGHTS
        assert list(primary["model"]) == ["flight-delay-logistic@1", "flight-delay-boosting@1"]
        hindsight = analysis.load("four-delay-models", source).hindsight()
        assert sum(arm.decisions for arm in hindsight.arms) == FLIGHTS
        assert hindsight.epochs > 1
        lists = analysis.load("boosting-vs-base-rate", source).interleaving("booked")
        assert lists["impressions"].tolist() == [FLIGHTS]
    monkeypatch.setenv("TURNOUT_LAKE", sources[0])
    monkeypatch.setenv("TURNOUT_DATABASE", sources[1])
    try_the_notebooks()
    try_the_first_prediction(tmp_path)


def assert_the_story(told: str) -> None:
    """A better candidate has become champion, a drift was noticed and learned from, a sabotaged one is gone."""
    story = told.split("2013 at endpoint flight-season")[1]
    for line in (
        "flight-season-boosting-1: advance, every guardrail is kept, and the primary metric is better",
        "flight-season-boosting-1: promoted",
        "flight-season-sabotaged-1: rollback, brier",
    ):
        assert line in story, story
    assert "drift: " in story.split("trained again: ")[1]


def try_the_notebooks() -> None:
    """Execute all notebooks in one kernel, which is emptied between them; a cell that fails raises."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    contents = {path.stem: nbformat.read(path, as_version=4) for path in paths}  # type: ignore[no-untyped-call]
    whole = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    for notebook in contents.values():
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]  # type: ignore[no-untyped-call]
    NotebookClient(whole, timeout=300, kernel_name="python3").execute()
    for name, notebook in contents.items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
        assert (name, len(list(pictures(outputs)))) == (name, PICTURES[name])
        assert all(picture.startswith(b"\x89PNG") for picture in pictures(outputs))


def pictures(outputs: Iterable[Any]) -> Iterator[bytes]:
    for output in outputs:
        if "image/png" in output.get("data", {}):
            yield base64.b64decode(output["data"]["image/png"])


def try_the_first_prediction(folder: Path) -> None:
    """Make README's first prediction as it stands there; its reply is what README says of it."""
    text = Path("README.md").read_text()
    first = re.search(r"curl -s http://127\.0\.0\.1:8400(\S+) -d '(\{.*?\})'\n", text, re.DOTALL)
    assert first is not None
    path, body = first.groups()
    state = folder / "var"
    router = Router(state, state / "registry", database=f"sqlite:///{state}/turnout.db")
    try:
        router.wait_until_ready()
        reply = httpx.post(router.url + path, json=json.loads(body)).json()
        again = httpx.post(router.url + path, json=json.loads(body)).json()
    finally:
        router.stop()
    assert reply["experiment"] == "boosting-vs-logistic"
    assert (reply["propensity"], again["arm"]) == (0.5, reply["arm"])
