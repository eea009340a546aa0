"""Trains, evaluates and exports one candidate, and keeps it in the staging registry until its checks have passed."""

import time
from collections.abc import Sequence
from hashlib import sha256
from inspect import isfunction
from typing import NamedTuple

import pandas as pd

from models import ModelReference, Registry, evaluation, export, positional, publish, publishing, training
from models import estimator as estimators
from models import recipe as recipes
from models.evaluation import evaluate
from models.frame import from_frame
from models.libraries import installed_version
from models.manifest import DatasetVersion, Metric
from models.training import Fold, cross_validate, fit
from orchestration.candidates.names import Candidate
from orchestration.code_version import code_version
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake

_FOLDS = 3


class Trained(NamedTuple):
    """A candidate in the staging registry, with what was found about it."""

    staged: ModelReference
    folds: Sequence[Fold]
    metrics: dict[str, Metric]
    predictions: pd.DataFrame
    """Of the validation period: the row's key, the label, and what the estimator predicted."""
    data_version: str
    seconds: float


def train(candidate: Candidate, code: str, lake: Lake, staging: Registry) -> Trained:
    """Cross-validate on the training period, fit on all of it, judge on the validation period, export and stage.

    `code` is what `code_of` gave when the code was loaded: a file may be edited while this runs.
    """
    endpoint, recipe, started = candidate.endpoint, candidate.recipe, time.perf_counter()
    past, future = lake.read(endpoint.data.train.table), lake.read(endpoint.data.validation.table)
    rows, labels = _features(endpoint, past), past[endpoint.label].to_numpy()
    unseen = _features(endpoint, future)
    signature = from_frame(rows, "probability")
    folds = list(cross_validate(recipe, signature, rows, labels, folds=_FOLDS))
    fitted = fit(recipe, signature, rows, labels)
    predicted = estimators.predictions(fitted, unseen)
    metrics = evaluate(future[endpoint.label].to_numpy(), predicted, groups=future[endpoint.data.cluster].to_numpy())
    staged = publish(
        fitted,
        rows,
        name=candidate.model,
        registry=staging,
        signature=signature,
        validation=unseen,
        datasets={
            period.name: _version(lake, period.table) for period in (endpoint.data.train, endpoint.data.validation)
        },
        params=recipe.params,
        metrics=metrics,
        code_version=code,
    )
    predictions = future[[endpoint.data.row_key, endpoint.label]].assign(prediction=predicted)
    written = lake.write_if_changed(candidate.predictions, predictions)
    # The same predictions from other code, or other libraries, are another candidate: its files differ.
    data_version = sha256(f"{written.content_hash} {code}".encode()).hexdigest()
    return Trained(staged, folds, metrics, predictions, data_version, time.perf_counter() - started)


def code_of(candidate: Candidate) -> str:
    """Version of everything that decides how this candidate turns out, and of no other candidate's recipe."""
    recipe = candidate.recipe
    own = (recipe.name, sorted(recipe.params.items()), recipe.build, candidate.endpoint.features)
    shared = [part for name, part in sorted(vars(recipes).items()) if name.startswith("_") and isfunction(part)]
    pipeline = (estimators, evaluation, export, positional, publishing, training, train)
    return code_version(*own, *shared, *pipeline, installed_version("scikit-learn"), installed_version("skl2onnx"))


def _features(endpoint: Endpoint, frame: pd.DataFrame) -> pd.DataFrame:
    """The features as requests carry them: numbers in float64, though their values are exact in float32."""
    features = frame[list(endpoint.features)]
    return features.astype(dict.fromkeys(features.select_dtypes("float32").columns, "float64"))


def _version(lake: Lake, table: str) -> DatasetVersion:
    number, content_hash = lake.version(table)
    return DatasetVersion(number, content_hash)
