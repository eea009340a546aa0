import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from models import Feature, Registry, Signature, import_model, load
from models.errors import InvalidSample, MissingLibrary, ModelError, UnreadableModel, UnsupportedModel
from tests.models.foreign_graphs import FLOAT, model, typed, weighted, written

ONNX = {"onnx": {"data": "model.onnx", "onnx_version": "1.23.2", "providers": ["CPUExecutionProvider"], "code": None}}
SKOPS = {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "skops_trusted_types": None}}
PICKLE = {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle", "sklearn_version": "1.9.1"}}
COLUMNS = [
    {"type": "long", "name": "flights", "required": True},
    {"type": "boolean", "name": "weekend", "required": True},
    {"type": "string", "name": "carrier", "required": False},
]
TENSOR = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]
EXAMPLE = '{"columns": ["flights", "weekend", "carrier"], "data": [[3, true, "UA"], [4, false, null]]}'


def folder_of(
    tmp_path: Path, flavors: dict[str, Any], columns: Any = None, example: str | None = None, **more: Any
) -> Path:
    """A folder as MLflow 3.17 writes it, without the files of environments."""
    folder = tmp_path / "saved"
    folder.mkdir()
    described = {
        "flavors": flavors | {"python_function": {"loader_module": "mlflow"}},
        "mlflow_version": "3.17.2",
    } | more
    if columns is not None:
        described["signature"] = {"inputs": json.dumps(columns), "outputs": None, "params": None}
    if example is not None:
        described["saved_input_example_info"] = {"artifact_path": "input_example.json", "type": "dataframe"}
        (folder / "input_example.json").write_text(example)
    (folder / "MLmodel").write_bytes(msgspec.yaml.encode(described))
    return folder


def test_signature_and_sample_come_from_the_folder(tmp_path: Path, registry: Registry) -> None:
    folder = folder_of(tmp_path, ONNX, COLUMNS, EXAMPLE, run_id="99fa3804", model_uuid="28d863d6")
    written(typed(), folder)
    manifest = load(registry, import_model(folder, name="sum", registry=registry)).manifest
    assert manifest.signature == Signature(
        (
            Feature("flights", "number"),
            Feature("weekend", "boolean"),
            Feature("carrier", "category", nullable=True),
        ),
        "number",
    )
    assert manifest.sample.inputs[1] == {"flights": 4.0, "weekend": False, "carrier": None}
    assert manifest.sample.predictions == (103.5, 4.0)
    assert manifest.notes[0] == f"imported from {folder}, MLflow run 99fa3804"


def test_a_tensor_names_no_features_so_that_its_example_counts_them(tmp_path: Path, registry: Registry) -> None:
    folder = folder_of(tmp_path, ONNX, TENSOR, "[[1, 2, 3], [4, 5, NaN]]", model_uuid="28d863d6")
    written(weighted(), folder)
    manifest = registry.manifest(import_model(str(folder), name="sum", registry=registry))
    assert [feature.name for feature in manifest.signature.features] == ["f0", "f1", "f2"]
    assert manifest.notes[0].endswith(", MLflow model 28d863d6")
    (folder / "input_example.json").write_text('{"inputs": [[1, 2, 3]]}')
    assert registry.manifest(import_model(folder, name="sum", registry=registry)).sample.predictions == (321.0,)


def test_what_is_said_wins_over_what_the_folder_says(tmp_path: Path, registry: Registry) -> None:
    folder = folder_of(tmp_path, ONNX, TENSOR, "[[1, 2, 3]]")
    written(weighted(sigmoid=True), folder)
    (tmp_path / "rows.csv").write_text("a,b,c\n0,0,0\n")
    reference = import_model(folder, name="sum", sample=tmp_path / "rows.csv", output="probability", registry=registry)
    manifest = registry.manifest(reference)
    assert [feature.name for feature in manifest.signature.features] == ["a", "b", "c"]
    assert (manifest.signature.output, manifest.sample.predictions) == ("probability", (0.5,))


def test_an_estimator_that_mlflow_stored_by_skops_is_published(tmp_path: Path, registry: Registry) -> None:
    frame = pd.DataFrame({"age": np.arange(40.0), "spend": np.arange(40.0)[::-1]})
    columns = [{"type": "double", "name": name, "required": True} for name in reversed(frame.columns)]
    folder = folder_of(tmp_path, SKOPS, columns, frame.to_json(orient="split"))
    skops.io.dump(LogisticRegression().fit(frame, frame["age"] > 20), folder / "model.skops")
    manifest = registry.manifest(import_model(folder, name="churn", registry=registry))
    assert manifest.runtime == "onnx"
    assert manifest.signature.output == "probability"


def test_an_estimator_that_mlflow_pickled_is_not_loaded(tmp_path: Path, registry: Registry) -> None:
    folder = folder_of(tmp_path, PICKLE)
    (folder / "model.pkl").write_bytes(b"never read")
    with pytest.raises(UnreadableModel, match=rf"models\.publish\(mlflow\.sklearn\.load_model\('{folder}'\), sample, "):
        import_model(folder, name="churn", registry=registry)
    assert not registry.root.exists()


@pytest.mark.parametrize(
    ("flavors", "columns", "error", "message"),
    [
        (
            {"xgboost": {"data": "model.xgb"}},
            None,
            UnsupportedModel,
            "neither the flavor onnx nor sklearn: save it with",
        ),
        (ONNX, [{"type": "datetime", "name": "at"}], InvalidSample, "column 'at' of its signature is a datetime; feat"),
        (ONNX, {"type": "long"}, UnreadableModel, "MLmodel has a signature that MLflow does not write"),
        (
            {"onnx": {"data": "other.onnx"}},
            None,
            UnreadableModel,
            r"names the file 'other\.onnx', which the folder does",
        ),
        (
            {"onnx": {"data": "../rows.csv"}},
            None,
            UnreadableModel,
            r"names the file '\.\./rows\.csv', which the folder",
        ),
        (["onnx"], None, UnreadableModel, "MLmodel is not what MLflow writes: "),
        (None, None, UnreadableModel, "has no file MLmodel: a folder is imported when mlflow.onnx or mlflow.sklearn"),
    ],
)
def test_folders_that_cannot_be_imported_say_why(
    flavors: Any, columns: Any, error: type[ModelError], message: str, tmp_path: Path, registry: Registry
) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    folder = folder_of(tmp_path, flavors if isinstance(flavors, dict) else {}, columns)
    written(model({"a": (FLOAT, [None])}, [], {"a": (FLOAT, [None])}), folder)
    if isinstance(flavors, list):
        (folder / "MLmodel").write_text("flavors: [onnx]")
    if flavors is None:
        (folder / "MLmodel").unlink()
    with pytest.raises(error, match=message):
        import_model(folder, name="churn", registry=registry)
    assert not registry.root.exists()


STORE = """
from mlflow import MlflowClient
client = MlflowClient()
client.create_registered_model("sum")
print(client.create_model_version("sum", source={folder!r}).version)
client.set_registered_model_alias("sum", "best", "1")
"""
IMPORT = """
from models import import_model
for uri in ("models:/sum/1", "models:/sum@best"):
    print(import_model(uri, name="sum", registry={registry!r}))
try:
    import_model("models:/sum/2", name="sum", registry={registry!r})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_models_come_out_of_an_mlflow_registry(tmp_path: Path, registry: Registry) -> None:
    pytest.importorskip("mlflow", reason="MLflow's client is not installed: pip install 'turnout[mlflow]'")
    folder = folder_of(tmp_path, ONNX, COLUMNS, EXAMPLE)
    written(typed(), folder)
    code = textwrap.dedent(STORE + IMPORT).format(folder=str(folder), registry=str(registry.root))
    store = tmp_path / "store"
    # In a process of its own: MLflow changes loggers and warnings of the one that imports it.
    environment = {"MLFLOW_TRACKING_URI": f"file://{store}", "MLFLOW_ALLOW_FILE_STORE": "true", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    *imported, refused = done.stdout.splitlines()[1:] or [done.stderr]
    assert imported == ["sum@1", "sum@2"], done.stderr
    assert refused.startswith(f"UnreadableModel models:/sum/2 cannot be fetched from file://{store}: ")
    assert registry.manifest(registry.latest("sum")).notes[0] == "imported from models:/sum@best"


def test_addresses_need_the_client_and_a_server(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("models.importing.mlflow_registries.installed_version", lambda library: "3.17.2")
    with pytest.raises(UnreadableModel, match=r"runs:/1/model does not say on which server it is: set MLFLOW_TRACKING"):
        import_model("runs:/1/model", name="sum", registry=registry)
    monkeypatch.setattr("models.importing.mlflow_registries.installed_version", lambda library: None)
    with pytest.raises(MissingLibrary, match=r"models:/sum/3 needs MLflow's client, .*pip install 'turnout\[mlflow\]'"):
        import_model("models:/sum/3", name="sum", registry=registry)
