import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from litestar.testing import TestClient

from models.registry import Registry
from router import cli
from router.http.app import application
from router.service import Service
from router.settings import Settings
from tests.models.foreign_graphs import typed, weighted, written

ROWS = [{"flights": 3, "weekend": True, "carrier": "UA"}, {"flights": 4, "weekend": False, "carrier": None}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph and its sample."""
    written(typed(), tmp_path)
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path


def turnout(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env={"TURNOUT_REGISTRY": str(folder / "registry")})


def test_import_says_what_it_found_and_what_comes_next(folder: Path) -> None:
    path, sample = str(folder / "model.onnx"), str(folder / "rows.json")
    done = turnout(folder, "model", "import", path, "--name", "sum", "--sample", sample)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "sum@1 predicts a number and is served by onnx; it takes",
        "  flights: number",
        "  weekend: boolean",
        "  carrier: category, may be null",
        f"imported from {path}",
        "the graph takes whole numbers only in flights: a request with another is refused",
        "null reaches the graph as the empty string in carrier: compare its predictions there with those where it was "
        "trained",
        """to serve it: echo '{"name": "sum", "champion": "sum@1"}' | turnout endpoint create -""",
    ]
    assert "sum@1" in turnout(folder, "model", "list").stdout


def test_a_refused_import_leaves_nothing(folder: Path) -> None:
    (folder / "signature.json").write_text('{"features": [{"name": "a", "kind": "number"}], "output": "probability"}')
    signature = str(folder / "signature.json")
    path = str(folder / "model.onnx")
    refused = turnout(folder, "model", "import", path, "--name", "sum", "--signature", signature, "--output", "number")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: the signature says 'probability', but output is 'number'")
    assert not (folder / "registry").exists()


def test_import_asks_whether_numbers_are_probabilities_and_prints_json(folder: Path) -> None:
    (folder / "rows.csv").write_text("a,b,c\n0,0,0\n1,2,3\n")
    path, sample = str(written(weighted(sigmoid=True), folder)), str(folder / "rows.csv")
    arguments = ["model", "import", path, "--name", "sum", "--sample", sample]
    assert "if they are probabilities, import it with --output probability" in turnout(folder, *arguments).stdout
    done = turnout(folder, *arguments, "--output", "probability", "--json")
    manifest: dict[str, Any] = json.loads(done.stdout)
    assert (manifest["version"], manifest["signature"]["output"]) == (2, "probability")


def test_an_imported_model_is_served_at_once(folder: Path, settings: Settings) -> None:
    path, sample = str(folder / "model.onnx"), str(folder / "rows.json")
    assert turnout(folder, "model", "import", path, "--name", "sum", "--sample", sample).exit_code == 0
    assert settings.registry == folder / "registry"
    with TestClient(application(Service(settings), max_body_bytes=settings.max_body_bytes)) as client:
        assert client.post("/v1/endpoints", json={"name": "sum", "champion": "sum@1"}).status_code == 201
        reply = client.post("/v1/endpoints/sum/predict", json={"unit": "u", "inputs": ROWS})
        assert reply.json()["predictions"] == [103.5, 4.0]


LIGHT = """
import sys
HEAVY = ("pandas", "sklearn", "skops", "onnx", "skl2onnx", "mlflow", "pyarrow", "joblib")

class Missing:
    def find_spec(self, name, *_):
        if name in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from router.cli import main
main(["model", "import", sys.argv[1], "--name", "sum", "--sample", sys.argv[2]])
"""


def test_a_graph_needs_nothing_but_what_the_router_has(folder: Path) -> None:
    command = [sys.executable, "-c", LIGHT, str(folder / "model.onnx"), str(folder / "rows.json")]
    environment = {"TURNOUT_REGISTRY": str(folder / "registry"), "PATH": ""}
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Registry(folder / "registry").names() == ("sum",)
