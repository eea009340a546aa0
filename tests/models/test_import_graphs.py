import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import skl2onnx
from onnx import helper
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from models import Feature, Registry, Signature, import_model, load, publish
from models.errors import InvalidSample, InvalidTensor, ModelError, UnsupportedModel
from models.manifest import Graph, InputTensor
from models.runtime import Model
from models.sampling import encoded
from tests.models.foreign_graphs import BOOL, DOUBLE, FLOAT, INT64, model, typed, weighted, written
from tests.models.made_up import Flights

NUMBERS, CATEGORIES = ["distance", "weekend", "wind"], ["carrier", "tail"]
ROWS: list[dict[str, Any]] = [{"a": 1.0, "b": 2.0, "c": -3.0}, {"a": 0.0, "b": 0.5, "c": 0.0}]
ABC = tuple(Feature(name, "number") for name in "abc")


@pytest.fixture(scope="module")
def frame(flights: Flights) -> pd.DataFrame:
    """Numbers in float32, as exporters want them."""
    return flights.frame.astype(dict.fromkeys(NUMBERS, np.float32))


@pytest.fixture(scope="module")
def pipeline(frame: pd.DataFrame, flights: Flights) -> Pipeline:
    features = ColumnTransformer(
        [("n", SimpleImputer(), NUMBERS), ("c", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)]
    )
    return make_pipeline(features, LogisticRegression(max_iter=2000)).fit(frame.fillna({"tail": ""}), flights.late)


@pytest.fixture(scope="module")
def exported(pipeline: Pipeline, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline as skl2onnx writes it by itself: a tensor for each column, a label, and ZipMap's dictionaries."""
    return written(skl2onnx.to_onnx(pipeline, frame[:1]), tmp_path_factory.mktemp("exported"), "delay.onnx")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path / "rows.json"


def predicted(model: Model, rows: list[dict[str, Any]]) -> list[float]:
    return list(model.predict(encoded(rows, model.signature)))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_a_pipeline_converted_elsewhere_predicts_what_it_did_there(
    exported: Path, pipeline: Pipeline, frame: pd.DataFrame, registry: Registry, tmp_path: Path, suffix: str
) -> None:
    sample, path = frame.assign(late=1), tmp_path / f"rows.{suffix}"
    writers: dict[str, Callable[[], Any]] = {
        "csv": lambda: sample.to_csv(path, index=False),
        "parquet": lambda: sample.to_parquet(path),
        "json": lambda: sample.to_json(path, orient="records", double_precision=15),
    }
    writers[suffix]()
    served = load(registry, import_model(exported, name="delay", sample=path, registry=registry))
    manifest = served.manifest
    assert manifest.signature == Signature(
        (
            Feature("carrier", "category"),
            Feature("distance", "number"),
            Feature("weekend", "number"),
            Feature("wind", "number", nullable=True),
            Feature("tail", "category", nullable=True),
        ),
        "probability",
    )
    assert manifest.graph == Graph(
        inputs="per_feature",
        tensors=tuple(
            InputTensor(feature.name, "BYTES" if feature.kind == "category" else "FP32", as_column=True)
            for feature in manifest.signature.features
        ),
        output="output_probability",
        output_key=1,
    )
    assert manifest.notes == (
        f"imported from {exported}",
        "null reaches the graph as the empty string in tail: compare its predictions there with those where it was "
        "trained",
    )
    assert len(manifest.sample.inputs) == 8
    asked = json.loads(frame[:50].to_json(orient="records", double_precision=15))
    expected = pipeline.predict_proba(frame[:50].fillna({"tail": ""}))[:, 1]
    np.testing.assert_allclose(predicted(served, asked), expected, atol=1e-6)


def test_the_registry_keeps_the_very_graph(exported: Path, registry: Registry) -> None:
    reference = import_model(exported, name="delay", registry=registry)
    assert registry.read(reference, "model.onnx") == exported.read_bytes()
    manifest = load(registry, reference).manifest
    assert manifest.notes[1:] == ("there was no sample: every load predicts a made-up row of zeros and empty strings",)
    assert not any(feature.nullable for feature in manifest.signature.features)


def test_one_tensor_takes_its_features_in_the_order_of_the_columns(
    registry: Registry, tmp_path: Path, rows: Path
) -> None:
    path = written(weighted(), tmp_path)
    served = load(registry, import_model(path, name="sum", sample=rows, registry=registry))
    assert served.signature == Signature(ABC, "number")
    assert predicted(served, ROWS) == [-279.0, 5.0]
    declared = Signature(tuple(reversed(ABC)), "number")
    turned = load(registry, import_model(path, name="sum", sample=rows, signature=declared, registry=registry))
    assert predicted(turned, ROWS) == [117.0, 5.0]


def test_columns_that_pandas_numbered_are_named_by_their_numbers(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "numbered.json"
    pd.DataFrame([[1.0, 2.0, -3.0]]).to_json(path, orient="split")
    reference = import_model(written(weighted(), tmp_path), name="sum", sample=path, registry=registry)
    assert [feature.name for feature in registry.manifest(reference).signature.features] == ["0", "1", "2"]


def test_the_second_of_two_columns_is_the_probability(registry: Registry, tmp_path: Path, rows: Path) -> None:
    path = written(weighted(sigmoid=True, columns=2), tmp_path)
    graph = registry.manifest(import_model(path, name="sum", sample=rows, registry=registry)).graph
    assert graph is not None
    assert (graph.output, graph.output_column, graph.output_key) == ("y", 1, None)


def test_the_probability_of_a_named_class_is_noted(registry: Registry, tmp_path: Path, rows: Path) -> None:
    graph = model(
        {"X": (FLOAT, [None, 2])},
        [helper.make_node("ZipMap", ["X"], ["y"], domain="ai.onnx.ml", classlabels_strings=["stayed", "left"])],
        {},
    )
    maps = helper.make_map_type_proto(8, helper.make_tensor_type_proto(FLOAT, []))
    graph.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(maps)))
    (tmp_path / "pairs.json").write_text('[{"a": 0.25, "b": 0.75}]')
    reference = import_model(written(graph, tmp_path), name="left", sample=tmp_path / "pairs.json", registry=registry)
    manifest = load(registry, reference).manifest
    assert manifest.notes[1:] == ("the probability is that of class 'stayed'",)
    assert manifest.sample.predictions == (0.25,)


def test_a_single_column_is_a_probability_when_that_is_said(registry: Registry, tmp_path: Path, rows: Path) -> None:
    path = written(weighted(sigmoid=True), tmp_path)
    outputs = [
        registry.manifest(import_model(path, name="sum", sample=rows, registry=registry, **said)).signature.output
        for said in ({}, {"output": "probability"}, {"signature": Signature(ABC, "probability")})
    ]
    assert outputs == ["number", "probability", "probability"]


def test_a_tensor_for_each_kind_is_what_turnout_itself_exports(
    pipeline: Pipeline, frame: pd.DataFrame, registry: Registry, tmp_path: Path
) -> None:
    first = publish(pipeline, frame.fillna({"tail": ""}), name="delay", registry=registry)
    (tmp_path / "again.onnx").write_bytes(registry.read(first, "model.onnx"))
    frame.dropna().to_parquet(tmp_path / "rows.parquet")
    second = import_model(tmp_path / "again.onnx", name="again", sample=tmp_path / "rows.parquet", registry=registry,
                          signature=registry.manifest(first).signature)  # fmt: skip
    graph = load(registry, second).manifest.graph
    assert graph is not None
    assert (graph.inputs, len(graph.tensors)) == ("per_kind", 2)
    sample = registry.manifest(first).sample
    assert predicted(load(registry, second), list(sample.inputs)) == pytest.approx(sample.predictions)


def test_inputs_may_be_integers_truth_values_and_texts(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("carrier,weekend,flights\nUA,1,3\n007,0,4\n")
    path = written(typed(), tmp_path)
    served = load(registry, import_model(path, name="sum", sample=tmp_path / "rows.csv", registry=registry))
    assert served.signature.features == (
        Feature("flights", "number"),
        Feature("weekend", "boolean"),
        Feature("carrier", "category"),
    )
    assert served.manifest.sample.inputs[1] == {"flights": 4.0, "weekend": False, "carrier": "007"}
    row = {"flights": 3, "weekend": True, "carrier": "UA"}
    assert predicted(served, [row]) == [103.5]
    with pytest.raises(InvalidTensor, match="'flights' has a value that its model, which takes INT64, cannot take"):
        predicted(served, [row | {"flights": 1.5}])


def test_rows_with_nulls_are_left_out_when_the_graph_cannot_take_them(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n4,,6\n7,8,9\n")
    path = written(weighted(), tmp_path)
    manifest = registry.manifest(import_model(path, name="sum", sample=tmp_path / "rows.csv", registry=registry))
    assert manifest.signature.features == ABC
    assert manifest.notes[1:] == ("the graph refuses missing values: 1 rows of 3 were left out",)
    declared = Signature((ABC[0], Feature("b", "number", nullable=True), ABC[2]), "number")
    with pytest.raises(UnsupportedModel, match=r"no number for rows in which .* null: let it impute them, or declare"):
        import_model(path, name="sum", sample=tmp_path / "rows.csv", signature=declared, registry=registry)


def test_numbers_in_other_files_are_brought_along(
    registry: Registry, tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "apart"
    folder.mkdir()
    path = written(weighted(), folder, save_as_external_data=True, location="numbers.bin", size_threshold=0)
    # Where the numbers lie, onnxruntime would find them by itself, and miss them when the model is served.
    monkeypatch.chdir(folder)
    reference = import_model(path, name="sum", sample=rows, registry=registry)
    (folder / "numbers.bin").unlink()
    assert predicted(load(registry, reference), ROWS) == [-279.0, 5.0]
    with pytest.raises(UnsupportedModel, match=r"the files beside model\.onnx that hold its numbers cannot be read"):
        import_model(path, name="sum", sample=rows, registry=registry)
    monkeypatch.setattr("models.importing.graph_files.installed_version", lambda library: None)
    with pytest.raises(UnsupportedModel, match="or install onnx, which does so: pip install onnx"):
        import_model(path, name="sum", sample=rows, registry=registry)


def node(kind: str, source: str = "X", target: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, [source], [target], **attributes)


def passing(kind: int, shape: Any, out: int = FLOAT) -> Any:
    return model({"X": (kind, shape)}, [node("Cast", to=out)], {"y": (out, shape)})


WIDE = [None, 3]
NOT_SERVED: dict[str, tuple[Any, dict[str, Any], type[ModelError], str]] = {
    "nothing that is a graph": (
        b"?",
        {},
        UnsupportedModel,
        "cannot run the graph: .*: export it with standard operators",
    ),
    "ZipMap of float64": (
        model(
            {"X": (DOUBLE, WIDE)},
            [helper.make_node("ZipMap", ["X"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])],
            {"y": (FLOAT, WIDE)},
        ),
        {},
        UnsupportedModel,
        r"to_onnx\(.., options={'zipmap': False}\)",
    ),
    "a fixed number of rows": (
        weighted([1, 3]),
        {},
        UnsupportedModel,
        "'X' of the graph has a first axis of exactly 1",
    ),
    "pictures": (
        passing(FLOAT, [None, 3, 3]),
        {},
        UnsupportedModel,
        r"has the shape \[None, 3, 3\]: rows fill \[rows\]",
    ),
    "complex numbers": (
        model({"X": (14, WIDE)}, [node("Identity")], {"y": (14, WIDE)}),
        {},
        UnsupportedModel,
        "takes tensor\\(complex64\\), which is none of|cannot run the graph",
    ),
    "a label and nothing else": (
        passing(FLOAT, WIDE, INT64),
        {},
        UnsupportedModel,
        "gives y tensor.int64., of which none is a probability",
    ),
    "two outputs that could be it": (
        model(
            {"X": (FLOAT, WIDE)},
            [node("Identity"), node("Identity", target="z")],
            {"y": (FLOAT, WIDE), "z": (FLOAT, WIDE)},
        ),
        {},
        UnsupportedModel,
        "of which several could be the prediction: export it with one of them",
    ),
    "three classes": (passing(FLOAT, WIDE), {}, UnsupportedModel, "'y' of the graph holds 3 numbers for a row"),
    "a number of two columns": (
        weighted(columns=2),
        {"output": "number"},
        UnsupportedModel,
        "holds 2 numbers for a row: a number is one",
    ),
    "one answer for all rows": (
        model({"X": (FLOAT, WIDE)}, [node("ReduceSum", keepdims=0)], {"y": (FLOAT, [])}),
        {},
        UnsupportedModel,
        r"has the shape \[\] for 2 rows, not one for each",
    ),
    "rows that depend on each other": (
        model({"a": (FLOAT, [None])}, [node("Softmax", "a", axis=0)], {"y": (FLOAT, [None])}),
        {},
        UnsupportedModel,
        "for row 0 alone, but .* among others: rows must not depend on each other",
    ),
    "features without names": (
        weighted(),
        {"sample": None},
        InvalidSample,
        r"its inputs \['X'\]: give rows with named",
    ),
    "fewer columns": (
        passing(FLOAT, [None, 2]),
        {},
        InvalidSample,
        r"'X' takes 2 numbers, but 3 are given, \['a', 'b', 'c'\]; leave out what is no feature",
    ),
    "inputs of other names": (
        model(
            {"a": (FLOAT, [None, 1]), "d": (FLOAT, [None, 1])},
            [helper.make_node("Add", ["a", "d"], ["y"])],
            {"y": (FLOAT, [None, 1])},
        ),
        {},
        InvalidSample,
        r"takes the inputs \['a', 'd'\], but the features are \['a', 'b', 'c'\], of which none is 'd': name",
    ),
    "a text for numbers": (
        weighted(),
        {"signature": Signature((*ABC[:2], Feature("c", "category")), "number")},
        InvalidSample,
        r"'X' takes 3 numbers, but 2 are given|it takes no categories, but 1 are given",
    ),
    "a number for a truth value": (
        passing(BOOL, [None, 1]),
        {"signature": Signature((Feature("X", "number"),), "number"), "sample": None},
        UnsupportedModel,
        "feature 'X' is a number, but the graph takes BOOL",
    ),
    "a signature that the sample does not have": (
        weighted(),
        {"signature": Signature((*ABC[:2], Feature("d", "number")), "number")},
        InvalidSample,
        "the sample has no column 'd'",
    ),
    "a probability beyond one": (weighted(), {"output": "probability"}, InvalidSample, "which is no probability"),
    "two opinions about the output": (
        weighted(),
        {"output": "probability", "signature": Signature(ABC, "number")},
        InvalidSample,
        "the signature says 'number', but output is 'probability'",
    ),
}


@pytest.mark.parametrize("case", NOT_SERVED)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    case: str, registry: Registry, tmp_path: Path, rows: Path
) -> None:
    graph, options, error, message = NOT_SERVED[case]
    arguments: dict[str, Any] = {"name": "sum", "sample": rows, "registry": registry}
    path = tmp_path / "model.onnx"
    path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
    with pytest.raises(error, match=message):
        import_model(path, **arguments | options)
    assert not registry.root.exists()


def test_a_version_loads_only_while_its_graph_answers_as_it_did(registry: Registry, tmp_path: Path, rows: Path) -> None:
    reference = import_model(written(weighted(), tmp_path), name="sum", sample=rows, registry=registry)
    manifest = registry.manifest(reference)
    assert manifest.sample.predictions == (-279.0, 5.0)
    assert msgspec.json.decode(msgspec.json.encode(manifest.graph), type=Graph) == manifest.graph
