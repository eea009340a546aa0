import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestration.code_version import code_version

ORIGINAL = '''
def score(x):
    """Adds one."""
    # for a reason
    return x + 1
'''
REFORMATTED = '''
def score(
    x,
):
    """Adds exactly one."""
    return (x + 1)  # explained elsewhere
'''
CHANGED = ORIGINAL.replace("+ 1", "+ 2")


def module(folder: Path, source: str) -> ModuleType:
    path = folder / f"scoring{hash(source) % 1000}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("part", [lambda loaded: loaded, lambda loaded: loaded.score], ids=["module", "function"])
def test_code_version_changes_with_what_the_code_does(tmp_path: Path, part: object) -> None:
    assert callable(part)
    original, reformatted, changed = (
        code_version(part(module(tmp_path, source))) for source in (ORIGINAL, REFORMATTED, CHANGED)
    )
    assert original == reformatted
    assert original != changed


def test_code_version_is_the_same_in_every_process() -> None:
    """Sets of strings have another order in each process."""
    source = 'def known(x):\n    return x in {"EWR", "JFK", "LGA", "BOS", "IAH"}\n'
    command = f"from orchestration.code_version import _described as d; print(d(compile({source!r}, 'm', 'exec')))"
    runs = [
        subprocess.run([sys.executable, "-c", command], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        for seed in ("1", "2", "3")
    ]
    assert len({run.stdout for run in runs}) == 1


def test_code_version_sees_constants() -> None:
    assert code_version(("a", 1)) != code_version(("a", 2))
    assert len(code_version(("a", 1))) == 12
