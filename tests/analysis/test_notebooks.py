import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.analysis.ledgers import flights

NOTEBOOKS = Path(__file__).parents[2] / "analysis" / "notebooks"
FIRST = NOTEBOOKS / "01-first-experiment.ipynb"


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def _run(path: Path) -> list[dict[str, Any]]:
    """Execute a notebook and return the outputs of all its cells; a failing cell raises."""
    notebook = _read(path)
    NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in _read(path).cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


def test_first_experiment_answers_with_numbers_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = flights(1500)
    monkeypatch.setenv("TURNOUT_DATABASE", ledger.write_sqlite(tmp_path / "turnout.db"))
    monkeypatch.setenv("TURNOUT_LAKE", str(ledger.write_lake(tmp_path / "lake")))
    outputs = _run(FIRST)
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert f"read from lake {tmp_path / 'lake' / 'logs'}" in printed
    assert "advance: boosting\n  boosting lowers brier by " in printed
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert [output for output in outputs if output.get("name") == "stderr"] == []
