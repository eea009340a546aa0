import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from models import ModelReference, Registry, load, publish
from models.errors import IncompatibleLibrary, ModelNotFound, SelfCheckFailed, TamperedModel, UntrustedType
from models.frame import encode_frame
from models.manifest import Draft
from models.runtime import Model
from models.signature import BatchEncoder, input_struct
from tests.models.made_up import Flights

NUMBERS = ["distance", "weekend", "wind"]
CATEGORIES = ["carrier", "tail"]


ONNX, SKLEARN = ModelReference("onnx", 1), ModelReference("sklearn", 1)
ROW = {"carrier": "UA", "distance": 1000, "weekend": True, "wind": 10.0, "tail": "n1"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, flights: Flights) -> Registry:
    """A registry with one model for each runtime."""
    registry = Registry(tmp_path_factory.mktemp("published"))
    one_hot = ColumnTransformer(
        [("n", SimpleImputer(), NUMBERS), ("c", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)]
    )
    # A code of their own for missing categories is what ONNX cannot give them.
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    ordinal = ColumnTransformer([("n", "passthrough", NUMBERS), ("c", encoder, CATEGORIES)])
    models = {
        "onnx": make_pipeline(one_hot, LogisticRegression(max_iter=2000)),
        "sklearn": make_pipeline(ordinal, HistGradientBoostingClassifier(max_iter=5)),
    }
    for name, model in models.items():
        publish(model.fit(flights.frame, flights.late), flights.frame, name=name, registry=registry)
    return registry


def republished(
    source: Registry, reference: ModelReference, target: Registry, files: dict[str, bytes] | None = None, **changes: Any
) -> ModelReference:
    """The same version in another registry, its manifest changed by somebody who can publish."""
    manifest = source.manifest(reference)
    fields = {field: getattr(manifest, field) for field in Draft.__struct_fields__}
    content = {file: source.read(reference, file) for file in manifest.files}
    return target.publish(Draft(**fields | changes), content | (files or {}))


def predicted(model: Model, *rows: dict[str, Any]) -> list[float]:
    decoded = msgspec.convert(list(rows), list[input_struct(model.signature)])  # type: ignore[misc]
    return list(model.predict(BatchEncoder(model.signature).encode(decoded)))


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
def test_load_gives_a_model_that_knows_what_it_is(published: Registry, reference: ModelReference) -> None:
    model = load(published, reference)
    assert model.reference == reference
    assert model.manifest == published.manifest(reference)
    assert model.manifest.runtime == reference.name
    assert model.signature is model.manifest.signature


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
def test_model_serves_unknown_categories_and_nulls(published: Registry, reference: ModelReference) -> None:
    model = load(published, reference)
    odd = [ROW | {"carrier": "XX"}, ROW | {"tail": None}, ROW | {"wind": None}, ROW | {"carrier": "", "tail": "ü" * 99}]
    answers = predicted(model, ROW, *odd)
    assert all(0 < answer < 1 for answer in answers)
    assert len(set(answers)) > 1


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
def test_model_predicts_a_row_alone_as_it_does_in_company(published: Registry, reference: ModelReference) -> None:
    model = load(published, reference)
    rows = [ROW | {"distance": distance} for distance in range(100, 3000, 100)]
    alone = [predicted(model, row)[0] for row in rows]
    np.testing.assert_allclose(predicted(model, *rows), alone, atol=1e-7)


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
def test_model_predicts_the_same_from_many_threads(
    published: Registry, reference: ModelReference, flights: Flights
) -> None:
    model = load(published, reference)
    batch = encode_frame(flights.frame, model.signature)
    rows = [batch.take(np.array([row])) for row in range(100)]
    with ThreadPoolExecutor(4) as pool:
        together = [answer.item() for answer in pool.map(model.predict, rows)]
    assert together == [model.predict(row).item() for row in rows]


def test_load_names_a_missing_version(published: Registry) -> None:
    with pytest.raises(ModelNotFound, match="no model onnx@7"):
        load(published, ModelReference("onnx", 7))


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
@pytest.mark.parametrize("file", ["model.skops", "manifest.json"])
def test_load_refuses_a_tampered_version(
    published: Registry, registry: Registry, reference: ModelReference, file: str
) -> None:
    copy = republished(published, reference, registry)
    path = registry.path(copy) / file
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(TamperedModel, match=f"{reference}: {file}"):
        load(registry, copy)


def test_load_refuses_another_scikit_learn(published: Registry, registry: Registry) -> None:
    copy = republished(published, SKLEARN, registry, libraries={"scikit-learn": "1.8.2"})
    message = (
        r"sklearn@1 was made with scikit-learn 1\.8\.2, but 1\.9\.\d+ is installed: install scikit-learn 1\.8\.\* or"
    )
    with pytest.raises(IncompatibleLibrary, match=message):
        load(registry, copy)


def test_load_takes_another_patch_of_scikit_learn(published: Registry, registry: Registry) -> None:
    copy = republished(published, SKLEARN, registry, libraries={"scikit-learn": "1.9.999"})
    assert load(registry, copy).reference == SKLEARN


def test_onnx_model_does_not_mind_another_scikit_learn(published: Registry, registry: Registry) -> None:
    copy = republished(published, ONNX, registry, libraries={"scikit-learn": "1.0.0"})
    assert load(registry, copy).reference == ONNX


def test_load_refuses_a_graph_that_is_newer_than_onnxruntime(published: Registry, registry: Registry) -> None:
    graph = onnx.load_from_string(published.read(ONNX, "model.onnx"))
    for opset in graph.opset_import:
        opset.version += 1000
    libraries = {"onnxruntime": "99.0.0"}
    copy = republished(published, ONNX, registry, {"model.onnx": graph.SerializeToString()}, libraries=libraries)
    message = r"onnx@1 was checked with onnxruntime 99\.0\.0, but \d\S+ is installed and cannot run it: install onnx"
    with pytest.raises(IncompatibleLibrary, match=message):
        load(registry, copy)


def test_load_refuses_types_that_the_manifest_does_not_list(published: Registry, registry: Registry) -> None:
    copy = republished(published, SKLEARN, registry, trusted_types=())
    with pytest.raises(UntrustedType, match="TreePredictor is not on the reviewed list"):
        load(registry, copy)


@pytest.mark.parametrize("reference", [ONNX, SKLEARN])
def test_load_refuses_a_model_that_strays_from_its_sample(
    published: Registry, registry: Registry, reference: ModelReference
) -> None:
    sample = published.manifest(reference).sample
    moved = (*sample.predictions[:3], sample.predictions[3] + 1e-3, *sample.predictions[4:])
    copy = republished(published, reference, registry, sample=msgspec.structs.replace(sample, predictions=moved))
    with pytest.raises(SelfCheckFailed, match=f"{reference} predicts .* for row 3 of its sample, but .* was published"):
        load(registry, copy)


LOADER = """
import sys
from pathlib import Path

class NoPandas:
    def find_spec(self, name, *_):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)

sys.meta_path.insert(0, NoPandas())
import models
heavy = {"numpy", "onnxruntime", "sklearn", "skops"} & sys.modules.keys()
assert not heavy, heavy
models.load(models.Registry(Path(sys.argv[1])), models.ModelReference(sys.argv[2], 1))
print(*sorted({"sklearn", "skops", "skl2onnx", "onnx", "onnxruntime"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("reference", "imported"), [(ONNX, ["onnxruntime"]), (SKLEARN, ["skops", "sklearn"])], ids=["onnx", "sklearn"]
)
def test_loading_imports_only_what_serves(published: Registry, reference: ModelReference, imported: list[str]) -> None:
    command = [sys.executable, "-c", LOADER, str(published.root), reference.name]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == sorted(imported)
