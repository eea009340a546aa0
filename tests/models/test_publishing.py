import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import models
from models import Feature, ModelReference, Registry, Signature, load, publish
from models.errors import InvalidReference, InvalidSample, RegistryUnavailable, UnsupportedModel, UntrustedType
from models.estimator import predictions
from models.frame import encode_frame
from models.manifest import DatasetVersion, Metric
from tests.models.made_up import Flights, made_up_flights


def pipeline(*, unknown: str = "ignore") -> Pipeline:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    features = ColumnTransformer(
        [
            ("numbers", numbers, ["distance", "wind", "weekend"]),
            ("categories", OneHotEncoder(handle_unknown=unknown), ["carrier", "tail"]),
        ]
    )
    return make_pipeline(features, LogisticRegression())


REQUIRED = (
    Feature("distance", "number"),
    Feature("wind", "number"),
    Feature("weekend", "boolean"),
    Feature("carrier", "category"),
    Feature("tail", "category"),
)


@pytest.fixture
def fitted(flights: Flights) -> Pipeline:
    return pipeline().fit(flights.frame, flights.late)


def test_publish_a_pipeline_trained_on_a_frame(fitted: Pipeline, flights: Flights, registry: Registry) -> None:
    reference = publish(fitted, flights.frame, name="delay", registry=registry)
    model = load(registry, reference)
    assert reference == ModelReference("delay", 1)
    assert model.signature.output == "probability"
    assert set(model.signature.features) == {
        Feature("carrier", "category"),
        Feature("distance", "number"),
        Feature("weekend", "boolean"),
        Feature("wind", "number", nullable=True),
        Feature("tail", "category", nullable=True),
    }
    found = model.predict(encode_frame(flights.frame, model.signature))
    np.testing.assert_allclose(found, predictions(fitted, flights.frame), atol=1e-6)


def test_manifest_says_everything_about_the_version(fitted: Pipeline, flights: Flights, registry: Registry) -> None:
    publish(
        fitted,
        flights.frame[:200],
        name="delay",
        registry=registry,
        validation=flights.frame,
        datasets={"train": DatasetVersion(3, "abc")},
        params={"C": np.float64(0.5), "rounds": np.int64(3), "deep": {"seed": None}, "object": len},
        metrics={"brier": Metric(0.2, 0.1, 0.3, 0.95), "accuracy": np.float64(0.75)},
        code_version="1f2e3d",
    )
    manifest = registry.manifest(ModelReference("delay", 1))
    assert manifest.runtime == "onnx"
    assert manifest.float_width == 32
    assert set(manifest.files) == {"model.onnx", "model.skops"}
    assert {"scikit-learn", "skops", "onnxruntime", "skl2onnx", "numpy"} <= set(manifest.libraries)
    assert manifest.parity is not None
    # All rows of the validation, and eight probes each of unseen categories and of nulls.
    assert manifest.parity.rows == len(flights.frame) + 16
    assert manifest.parity.max_abs_difference < manifest.parity.limit == 1e-4
    assert 5 <= len(manifest.sample.inputs) == len(manifest.sample.predictions) <= 10
    assert manifest.datasets == {"train": DatasetVersion(3, "abc")}
    assert manifest.params == {"C": 0.5, "rounds": 3, "deep": {"seed": None}, "object": "<built-in function len>"}
    assert manifest.metrics == {"brier": Metric(0.2, 0.1, 0.3, 0.95), "accuracy": Metric(0.75)}
    assert manifest.code_version == "1f2e3d"
    assert manifest.notes == ()


def test_publish_a_model_trained_on_an_array(flights: Flights, registry: Registry) -> None:
    rows = flights.frame[["distance", "weekend"]].to_numpy(dtype=float)
    estimator = LogisticRegression().fit(rows, flights.late)
    for names, expected in ((None, ["f0", "f1"]), (["distance", "weekend"], ["distance", "weekend"])):
        model = load(registry, publish(estimator, rows, name="delay", feature_names=names, registry=registry))
        assert [(feature.name, feature.kind) for feature in model.signature.features] == [
            (name, "number") for name in expected
        ]
        assert model.manifest.runtime == "onnx"


def test_array_takes_the_names_that_the_estimator_was_fitted_with(flights: Flights, registry: Registry) -> None:
    frame = flights.frame[["distance"]]
    estimator = LinearRegression().fit(frame, flights.late)
    reference = publish(estimator, frame.to_numpy(), name="delay", registry=registry)
    assert registry.manifest(reference).signature.features == (Feature("distance", "number"),)


def test_publish_a_regressor(flights: Flights, registry: Registry) -> None:
    frame = flights.frame[["distance", "wind"]]
    estimator = HistGradientBoostingRegressor(max_iter=10).fit(frame, 3.0 * flights.frame["distance"])
    model = load(registry, publish(estimator, frame, name="minutes", registry=registry))
    assert model.signature == Signature((Feature("distance", "number"), Feature("wind", "number", True)), "number")
    found = model.predict(encode_frame(frame, model.signature))
    np.testing.assert_allclose(found, estimator.predict(frame), rtol=1e-6)


def test_publish_a_regressor_of_probabilities(flights: Flights, registry: Registry) -> None:
    estimator = HistGradientBoostingRegressor(max_iter=2).fit(flights.frame[["distance"]], flights.late)
    reference = publish(estimator, flights.frame[["distance"]], name="delay", registry=registry, output="probability")
    assert registry.manifest(reference).signature.output == "probability"


def test_a_declared_signature_is_kept(fitted: Pipeline, flights: Flights, registry: Registry) -> None:
    declared = Signature(
        (
            Feature("tail", "category", nullable=True),
            Feature("distance", "number", nullable=True),
            Feature("wind", "number"),
            Feature("weekend", "boolean"),
            Feature("carrier", "category"),
        ),
        "probability",
    )
    reference = publish(fitted, flights.frame, name="delay", registry=registry, signature=declared)
    manifest = load(registry, reference).manifest
    assert manifest.signature == declared
    assert all(row["wind"] is not None for row in manifest.sample.inputs)


def test_estimator_without_exact_conversion_is_served_by_scikit_learn(flights: Flights, registry: Registry) -> None:
    frame = flights.frame[["distance"]]
    estimator = make_pipeline(SimpleImputer(), LinearRegression()).fit(frame, frame["distance"] * 1e6 + 0.7)
    model = load(registry, publish(estimator, frame, name="delay", registry=registry))
    assert model.manifest.runtime == "sklearn"
    assert model.manifest.parity is None
    assert model.manifest.float_width is None
    assert set(model.manifest.files) == {"model.skops"}
    assert model.manifest.notes[0].startswith("served by scikit-learn, not ONNX: ONNX and scikit-learn differ by")


def test_without_skl2onnx_scikit_learn_serves(
    fitted: Pipeline, flights: Flights, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.publishing.installed_version", lambda library: None)
    model = load(registry, publish(fitted, flights.frame, name="delay", registry=registry))
    assert model.manifest.runtime == "sklearn"
    assert model.manifest.notes == (
        "served by scikit-learn, not ONNX: skl2onnx is not installed: pip install 'turnout[orchestration]'",
    )


def test_estimator_that_refuses_missing_values_gets_no_nullable_features(flights: Flights, registry: Registry) -> None:
    frame = flights.frame[["distance", "wind"]]
    estimator = LogisticRegression().fit(frame.dropna(), flights.late[frame["wind"].notna()])
    manifest = registry.manifest(publish(estimator, frame, name="delay", registry=registry))
    assert manifest.signature.features == (Feature("distance", "number"), Feature("wind", "number"))
    missing = frame["wind"].isna().sum()
    assert manifest.notes == (f"the estimator refuses missing values: {missing} rows of 800 were left out",)


def test_registry_defaults_to_the_environment_and_then_to_var(
    fitted: Pipeline, flights: Flights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TURNOUT_REGISTRY", raising=False)
    publish(fitted, flights.frame, name="a")
    monkeypatch.setenv("TURNOUT_REGISTRY", str(tmp_path / "elsewhere"))
    publish(fitted, flights.frame, name="b")
    publish(fitted, flights.frame, name="c", registry=str(tmp_path / "third"))
    folders = [tmp_path / "var" / "registry", tmp_path / "elsewhere", tmp_path / "third"]
    assert [Registry(folder).names() for folder in folders] == [("a",), ("b",), ("c",)]


def with_wrong_columns(flights: Flights) -> dict[str, Any]:
    return {"sample": flights.frame.assign(late=flights.late)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: {"name": "My Model"}, InvalidReference, "'My Model' is not a model name"),
        (
            with_wrong_columns,
            InvalidSample,
            r"fitted on columns \[.*\], but the rows have .*'late'\]: give them the same",
        ),
        (lambda f: {"sample": f.frame[:0]}, InvalidSample, "there are no rows"),
        (lambda f: {"sample": f.frame.assign(distance="far")}, InvalidSample, "Pipeline does not predict these rows"),
        (lambda f: {"sample": np.zeros(5)}, InvalidSample, "two dimensions, rows and features, not 1"),
        (lambda f: {"sample": np.zeros((5, 2))}, InvalidSample, "5 feature names do not fit 2 columns"),
        (
            lambda f: {"signature": Signature((Feature("speed", "number"),), "number")},
            InvalidSample,
            r"signature has the features \['speed'\], but the estimator was fitted on",
        ),
        (
            lambda f: {"sample": f.frame.assign(wind=np.nan), "signature": Signature(REQUIRED, "probability")},
            InvalidSample,
            "every row lacks a feature that may not be null",
        ),
        (lambda f: {"estimator": FunctionTransformer()}, UnsupportedModel, "neither a classifier nor a regressor"),
        (
            lambda f: {"estimator": "model.pkl"},
            UnsupportedModel,
            "'model.pkl' is no estimator of .* export the model to",
        ),
        (
            lambda f: {"estimator": LogisticRegression},
            UnsupportedModel,
            "is no estimator of scikit-learn: publish a fit",
        ),
        (
            lambda f: {"estimator": pipeline(unknown="error").fit(f.frame, f.late)},
            UnsupportedModel,
            "refuses categories that it was not fitted on: give its encoder handle_unknown='ignore'",
        ),
        (lambda f: {"registry": f"{__file__}/registry"}, RegistryUnavailable, "Not a directory"),
    ],
)
def test_publish_refuses_what_cannot_be_served(
    change: Callable[[Flights], dict[str, Any]],
    error: type[Exception],
    message: str,
    fitted: Pipeline,
    flights: Flights,
    registry: Registry,
) -> None:
    arguments: dict[str, Any] = {"estimator": fitted, "sample": flights.frame, "name": "delay", "registry": registry}
    with pytest.raises(error, match=message):
        publish(**arguments | change(flights))
    assert not registry.root.exists()


def test_publish_refuses_a_nullable_feature_that_the_estimator_cannot_miss(
    flights: Flights, registry: Registry
) -> None:
    frame = flights.frame[["distance"]]
    estimator = LogisticRegression().fit(frame, flights.late)
    declared = Signature((Feature("distance", "number", nullable=True),), "probability")
    with pytest.raises(UnsupportedModel, match="refuses rows in which every nullable feature is null"):
        publish(estimator, frame, name="delay", registry=registry, signature=declared)


def test_publish_refuses_a_probability_beyond_one(flights: Flights, registry: Registry) -> None:
    estimator = LinearRegression().fit(flights.frame[["distance"]], flights.frame["distance"])
    with pytest.raises(InvalidSample, match="are no probabilities: publish with output='number'"):
        publish(estimator, flights.frame[["distance"]], name="delay", registry=registry, output="probability")


def test_publish_refuses_predictions_that_are_not_finite(flights: Flights, registry: Registry) -> None:
    estimator = LinearRegression().fit(flights.frame[["distance"]], flights.late)
    estimator.coef_[:] = np.inf
    with pytest.raises(InvalidSample, match="LinearRegression predicts inf for row 0"):
        publish(estimator, flights.frame[["distance"]], name="delay", registry=registry)


def test_publish_names_a_foreign_type(flights: Flights, registry: Registry) -> None:
    estimator = make_pipeline(FunctionTransformer(np.log1p), FunctionTransformer(made_up_log), LinearRegression())
    estimator.fit(flights.frame[["distance"]], flights.late)
    with pytest.raises(UntrustedType, match="made_up_log is not on the reviewed list"):
        publish(estimator, flights.frame[["distance"]], name="delay", registry=registry)


def made_up_log(rows: Any) -> Any:
    return rows


def test_publish_refuses_an_estimator_that_needs_a_data_frame(flights: Flights, registry: Registry) -> None:
    first = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    estimator = make_pipeline(first, LogisticRegression()).fit(flights.frame, flights.late)
    with pytest.raises(UnsupportedModel, match=r"plain arrays.*: select columns by name in a ColumnTransformer"):
        publish(estimator, flights.frame, name="delay", registry=registry)


def test_publish_refuses_an_estimator_that_arrays_lead_astray(flights: Flights, registry: Registry) -> None:
    frame = flights.frame[["tail"]].astype(object)
    frame.loc[frame["tail"].isna() & flights.frame["weekend"]] = np.nan
    frame.loc[frame["tail"].isna() & ~flights.frame["weekend"]] = None
    estimator = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    with pytest.raises(UnsupportedModel, match=r"strays by \S+ when given plain arrays: select columns by name"):
        publish(estimator.fit(frame, flights.frame["weekend"]), frame, name="delay", registry=registry)


def publish_and_be_killed(root: str) -> None:
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.rename = killed  # type: ignore[assignment, method-assign]
    flights = made_up_flights(300, seed=1)
    publish(pipeline().fit(flights.frame, flights.late), flights.frame, name="delay", registry=root)


def test_publisher_killed_before_the_end_leaves_nothing_visible(
    fitted: Pipeline, flights: Flights, registry: Registry
) -> None:
    process = get_context("spawn").Process(target=publish_and_be_killed, args=(str(registry.root),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert registry.references() == ()
    assert [path.name[:9] for path in registry.root.iterdir() if path.name != "delay"] == [".staging-"]
    publish(fitted, flights.frame, name="delay", registry=registry)
    assert load(registry, registry.latest("delay")).reference == ModelReference("delay", 1)


def test_package_offers_what_it_lists() -> None:
    assert [name for name in models.__all__ if getattr(models, name, None) is None] == []
    with pytest.raises(AttributeError, match="has no attribute 'publisher'"):
        models.publisher  # noqa: B018
    assert msgspec.json.decode(msgspec.json.encode(Signature(REQUIRED, "number")), type=Signature).output == "number"


def test_sample_may_be_a_single_row(fitted: Pipeline, flights: Flights, registry: Registry) -> None:
    row = pd.DataFrame([{"carrier": "UA", "distance": 1, "weekend": True, "wind": 1.0, "tail": "n1"}])
    manifest = registry.manifest(publish(fitted, row, name="delay", registry=registry, validation=flights.frame))
    assert len(manifest.sample.inputs) == 1
