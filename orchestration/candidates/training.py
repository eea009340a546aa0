"""Trains, evaluates and exports one candidate, and keeps it in the staging registry until its checks have passed."""

import time
from collections.abc import Sequence
from hashlib import sha256
from inspect import isfunction
from typing import NamedTuple

import pandas as pd

from models import ModelReference, Registry, evaluation, export, positional, publish, publishing, training
from models import estimator as estimators
from models import frame as frames
from models import recipe as recipes
from models.evaluation import evaluate
from models.libraries import installed_version
from models.manifest import Metric
from models.signature import Feature, Signature
from models.training import Fold, cross_validate, fit
from orchestration.candidates.names import Candidate
from orchestration.candidates.rows import present, rows_of
from orchestration.code_version import code_version
from orchestration.datasets.tables import by_name
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
    periods = (endpoint.data.train, endpoint.data.validation)
    # Both may be cut anew while this runs.
    datasets = {period.name: present(lake, period) for period in periods}
    past, future = (rows_of(lake, period, datasets[period.name]) for period in periods)
    rows, labels = features_of(endpoint, past), past[endpoint.label].to_numpy()
    unseen = features_of(endpoint, future)
    signature = signature_of(endpoint, rows)
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
        datasets=datasets,
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
    endpoint, recipe = candidate
    declared = (endpoint.features, endpoint.label, endpoint.data.cluster, sorted(_nullable(endpoint)))
    own = (recipe.name, sorted(recipe.params.items()), recipe.build, *declared)
    shared = [part for name, part in sorted(vars(recipes).items()) if name.startswith("_") and isfunction(part)]
    pipeline = (estimators, evaluation, export, frames, positional, publishing, training)
    here = (train, features_of, signature_of, _nullable)
    libraries = (installed_version("scikit-learn"), installed_version("skl2onnx"))
    return code_version(*own, *shared, *pipeline, *here, *libraries)


def features_of(endpoint: Endpoint, frame: pd.DataFrame) -> pd.DataFrame:
    """The features as requests carry them: numbers in float64, though their values are exact in float32."""
    features = frame[list(endpoint.features)]
    return features.astype(dict.fromkeys(features.select_dtypes("float32").columns, "float64"))


def signature_of(endpoint: Endpoint, rows: pd.DataFrame) -> Signature:
    """The kinds of the rows; what the schema lets be missing may be null, though nothing is in these rows."""
    found, nullable = frames.from_frame(rows, "probability"), _nullable(endpoint)
    features = (Feature(each.name, each.kind, each.nullable or each.name in nullable) for each in found.features)
    return Signature(tuple(features), found.output)


def _nullable(endpoint: Endpoint) -> set[str]:
    """The features that the schema lets be missing."""
    schema = by_name(endpoint.data.datasets)[endpoint.data.features_from].schema
    declared = schema.columns if schema is not None else {}
    return {name for name in endpoint.features if name in declared and declared[name].nullable}
