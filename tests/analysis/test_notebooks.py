"""What is stored of the notebooks; they are executed on the demo's own data, in tests/system/test_demo.py."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "analysis" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_LINK = re.compile(r"\]\(([^)#]+)\)")


def _cells(path: Path, kind: str) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in notebook.cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = _cells(path, "code")
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_short_and_asks_one_question(path: Path) -> None:
    prose, code = _cells(path, "markdown"), _cells(path, "code")
    assert 6 <= len(prose) + len(code) <= 15
    first_line, *others = prose[0].source.splitlines()
    assert re.fullmatch(r"# .*\?", first_line)
    assert not any(line.startswith("# ") for line in others)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_notebook_lead_to_files(path: Path) -> None:
    links = [link for cell in _cells(path, "markdown") for link in _LINK.findall(cell.source)]
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_seven_notebooks_are_listed_in_the_docs_in_order() -> None:
    docs = FOLDER.parents[1] / "docs"
    listed = [docs / link for link in _LINK.findall((docs / "notebooks.md").read_text()) if link.endswith(".ipynb")]
    assert [path.resolve() for path in listed] == NOTEBOOKS
    assert len(NOTEBOOKS) == 7
