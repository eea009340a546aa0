import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from models import Feature, Registry, Signature, import_model, load
from models.errors import (
    IncompatibleLibrary,
    InvalidReference,
    InvalidSample,
    MissingLibrary,
    ModelError,
    UnreadableModel,
    UntrustedType,
)
from models.frame import encode_frame

FRAME = pd.DataFrame({"zip": ["01234", "01234", "99999", "99999"] * 5, "age": [20.0, 70.0, 20.0, 70.0] * 5})
CHURNED = [0, 1, 1, 1] * 5


@pytest.fixture(scope="module")
def estimator() -> Pipeline:
    one_hot = ColumnTransformer([("zip", OneHotEncoder(handle_unknown="ignore"), ["zip"])], remainder="passthrough")
    return make_pipeline(one_hot, LogisticRegression()).fit(FRAME, CHURNED)


@pytest.fixture
def folder(tmp_path: Path, estimator: Pipeline) -> Path:
    """A saved estimator and the rows that it was fitted on, label included."""
    skops.io.dump(estimator, tmp_path / "churn.skops")
    FRAME.assign(churned=CHURNED).to_csv(tmp_path / "rows.csv", index=False)
    FRAME.to_parquet(tmp_path / "rows.parquet")
    return tmp_path


def test_a_skops_file_is_published_like_any_estimator(folder: Path, estimator: Pipeline, registry: Registry) -> None:
    reference = import_model(folder / "churn.skops", name="churn", sample=folder / "rows.parquet", registry=registry)
    served = load(registry, reference)
    assert set(served.signature.features) == {Feature("zip", "category"), Feature("age", "number")}
    assert (served.manifest.runtime, served.manifest.graph) == ("onnx", None)
    assert served.manifest.notes == (f"imported from {folder / 'churn.skops'}",)
    found = served.predict(encode_frame(FRAME, served.signature))
    np.testing.assert_allclose(found, estimator.predict_proba(FRAME)[:, 1], atol=1e-6)


def test_a_signature_tells_texts_of_digits_from_numbers(folder: Path, registry: Registry) -> None:
    declared = Signature((Feature("zip", "category"), Feature("age", "number")), "probability")
    arguments: dict[str, Any] = {"name": "churn", "sample": folder / "rows.csv", "registry": registry}
    manifest = registry.manifest(import_model(folder / "churn.skops", signature=declared, **arguments))
    assert {row["zip"] for row in manifest.sample.inputs} == {"01234", "99999"}
    with pytest.raises(InvalidSample, match="it was given zip int64, age float64: give columns of the types that it"):
        import_model(folder / "churn.skops", **arguments)


def test_a_regressor_of_arrays_takes_the_names_of_the_sample(tmp_path: Path, registry: Registry) -> None:
    rows = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0)[::-1]})
    fitted = HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2).fit(rows.to_numpy(), rows["a"] * 2)
    skops.io.dump(fitted, tmp_path / "model.skops")
    rows.to_json(tmp_path / "rows.json", orient="split")
    reference = import_model(
        tmp_path / "model.skops", name="double", sample=tmp_path / "rows.json", registry=str(registry.root)
    )
    assert registry.manifest(reference).signature == Signature(
        (Feature("a", "number"), Feature("b", "number")), "number"
    )


def foreign(rows: Any) -> Any:
    return rows


def test_types_that_nobody_reviewed_are_refused(folder: Path, registry: Registry) -> None:
    fitted = make_pipeline(FunctionTransformer(foreign), LogisticRegression()).fit(FRAME[["age"]], CHURNED)
    skops.io.dump(fitted, folder / "own.skops")
    with pytest.raises(UntrustedType, match=r"foreign is not on the reviewed list: .* or export it to ONNX"):
        import_model(folder / "own.skops", name="churn", sample=folder / "rows.parquet", registry=registry)
    assert not registry.root.exists()


def test_an_estimator_of_another_scikit_learn_is_refused(
    folder: Path, estimator: Pipeline, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("sklearn.base.__version__", "1.6.1")
        skops.io.dump(estimator, folder / "old.skops")
    with pytest.raises(IncompatibleLibrary, match=r"old\.skops was made with scikit-learn 1\.6\.1, but 1\.9\.\d+ is"):
        import_model(folder / "old.skops", name="churn", sample=folder / "rows.parquet", registry=registry)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("sklearn.base.__version__", "1.9.999")
        skops.io.dump(estimator, folder / "patched.skops")
    import_model(folder / "patched.skops", name="churn", sample=folder / "rows.parquet", registry=registry)


def test_a_pickle_is_never_loaded_and_its_remedy_works(folder: Path, estimator: Pipeline, registry: Registry) -> None:
    (folder / "churn.joblib").write_bytes(pickle.dumps(estimator))
    with pytest.raises(UnreadableModel, match=r"churn\.joblib is a pickle, and Turnout never loads one") as caught:
        import_model(folder / "churn.joblib", name="churn", sample=folder / "rows.parquet", registry=registry)
    assert not registry.root.exists()
    # What is told to the user is what a user can run.
    exec("\n".join(re.findall(r"^    (.*)", str(caught.value), re.MULTILINE)))  # noqa: S102
    assert load(registry, registry.latest("churn")).signature.output == "probability"


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("name", ["bomb.pkl", "bomb.pickle", "bomb.joblib", "bomb.skops", "bomb.onnx", "bomb.bin"])
def test_what_a_pickle_would_run_does_not_run(
    name: str, tmp_path: Path, folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError):
        import_model(name, name="bomb", sample=folder / "rows.parquet", registry=registry)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sample": None}, InvalidSample, r"needs a sample: rows like those it was fitted on, .* \(--sample\)"),
        ({"sample": "nowhere.csv"}, InvalidSample, r"sample nowhere\.csv cannot be read as csv: .*No such file"),
        ({"sample": "nowhere.json"}, InvalidSample, r"sample nowhere\.json cannot be read: No such file"),
        ({"sample": "rows.txt"}, InvalidSample, r"rows\.txt is none of \.csv, \.parquet and \.json"),
        ({"sample": "odd.json"}, InvalidSample, r"odd\.json holds no rows of the form \[\{\"feature\""),
        ({"sample": "empty.csv"}, InvalidSample, r"sample empty\.csv has no rows: give at least one"),
        ({"source": "nowhere.skops"}, UnreadableModel, r"nowhere\.skops cannot be read: No such file"),
        (
            {"source": "s3://models/churn.onnx"},
            UnreadableModel,
            "is no file of this machine: download it first, or give",
        ),
        ({"source": "rows.csv"}, UnreadableModel, r"none of \.onnx, \.skops and a folder of MLflow's: convert .*ONNX"),
        ({"source": "odd.skops"}, UnreadableModel, r"odd\.skops is no skops file that can be read here"),
        ({"name": "My Churn"}, InvalidReference, "'My Churn' is not a model name"),
    ],
)
def test_errors_name_the_thing_and_the_remedy(
    change: dict[str, Any],
    error: type[ModelError],
    message: str,
    folder: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    Path("odd.json").write_text('{"age": 3}')
    Path("odd.skops").write_text("odd")
    Path("empty.csv").write_text("zip,age\n")
    arguments: dict[str, Any] = {"source": "churn.skops", "name": "churn", "sample": "rows.parquet"}
    with pytest.raises(error, match=message):
        import_model(**arguments | change, registry=registry)
    assert not registry.root.exists()


NO_ROWS = ("[]", '{"data": []}', '{"inputs": []}', '{"columns": ["zip", "age"], "data": []}')
NO_COLUMNS = ("[{}]", "[[]]", '{"data": [[]]}', '{"columns": [], "data": [[]]}')
ODD = (
    "",
    "3",
    "null",
    "{}",
    "[3]",
    "[null]",
    '["ab"]',
    "[[1], [2, 3]]",
    '{"data": null}',
    '{"data": 3}',
    '{"data": {"a": 1}}',
    '{"data": [1, 2]}',
    '{"columns": 3, "data": [[1]]}',
    '{"columns": [["zip"]], "data": [[1]]}',
    '{"columns": ["zip"], "data": [[1, 2]]}',
    '{"columns": [null, "age"], "data": [["0", 2]]}',
    '{"inputs": {"zip": ["1"], "age": [2]}}',
    "[" * 100_000,
)
OTHER = ('{"columns": [1, 2], "data": [["0", 3]]}', '[{"zip": {"a": 1}, "age": 3}]', '[{"zip": [1], "age": 3}]')
MESSAGES = {
    **dict.fromkeys(NO_ROWS, r"^sample .*odd\.json has no rows: give at least one"),
    **dict.fromkeys(NO_COLUMNS, r"^sample .*odd\.json has no columns: "),
    **dict.fromkeys(ODD, r"^sample .*odd\.json holds no rows of the form \[\{\"feature\""),
    **dict.fromkeys(OTHER, "zip"),
}


@pytest.mark.parametrize("content", MESSAGES)
def test_json_that_holds_no_such_rows_is_refused(content: str, folder: Path, registry: Registry) -> None:
    (folder / "odd.json").write_text(content)
    with pytest.raises(ModelError, match=MESSAGES[content]):
        import_model(folder / "churn.skops", name="churn", sample=folder / "odd.json", registry=registry)
    assert not registry.root.exists()


def test_without_pandas_the_remedy_is_to_install_it(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.importing.sample_files.installed_version", lambda library: None)
    with pytest.raises(MissingLibrary, match=r"pip install 'turnout\[analysis\]', or for an ONNX graph"):
        import_model(folder / "churn.skops", name="churn", sample=folder / "rows.csv", registry=registry)
