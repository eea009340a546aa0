"""A fitted estimator without its data frame: the same predictions from one array, columns taken by position.

A server that builds no data frames answers faster and needs no pandas. The array is `Batch.joined()`: numbers
first, then categories, with the empty string for a missing category.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

from models.signature import Signature


def order_of_use(estimator: Any, columns: Sequence[str]) -> list[str]:
    """The columns that an estimator was fitted on, those that it selects first and in the order of selection.

    skl2onnx takes a selection of all columns of an input to be in the input's own order, whatever it is.
    """
    from sklearn.compose import ColumnTransformer

    entries = [entry for entry in _entries(_found(estimator)) if isinstance(entry, ColumnTransformer)]
    used = [columns[position] for entry in entries for position in chain(*_selected(entry).values())]
    return list(dict.fromkeys([*used, *columns]))


def positional(estimator: Any, columns: Sequence[str], signature: Signature) -> Any:
    """A copy of an estimator fitted on such columns that takes `Batch.joined()` of the signature.

    The estimator itself is left as it was. What cannot be rewritten is left in place, so compare predictions.
    """
    from sklearn.compose import ColumnTransformer

    served = deepcopy(_found(estimator))
    joined = [feature.name for feature in (*signature.numbers, *signature.categories)]
    layout = [joined.index(column) for column in columns]
    entries = list(_entries(served))
    if all(isinstance(entry, ColumnTransformer) for entry in entries):
        for entry in entries:
            _select_by_position(entry, layout)
    elif layout != sorted(layout):
        served = _reordered(served, layout)
    for part in list(parts(served)):
        _forget_training(part)
        _read_empty_strings_as_missing(part)
    return served


def _found(estimator: Any) -> Any:
    """The estimator itself, or the best one when it is a search."""
    return getattr(estimator, "best_estimator_", estimator)


def _entries(estimator: Any) -> Iterator[Any]:
    """The innermost estimators that are handed the input as it comes."""
    inner = vars(estimator)
    if "steps" in inner:
        yield from _entries(next(step for _, step in estimator.steps if step not in (None, "passthrough")))
    elif "calibrated_classifiers_" in inner:
        for calibrated in estimator.calibrated_classifiers_:
            yield from _entries(calibrated.estimator)
    elif "transformer_list" in inner:
        for _, transformer in estimator.transformer_list:
            yield from _entries(transformer)
    elif "named_estimators_" in inner:
        for voter in estimator.estimators_:
            yield from _entries(voter)
    elif "regressor_" in inner:
        yield from _entries(estimator.regressor_)
    elif type(estimator).__name__ == "FrozenEstimator":
        yield from _entries(estimator.estimator)
    else:
        yield estimator


def _selected(transformer: Any) -> dict[str, list[int]]:
    # Names, slices, masks and selectors were resolved to column numbers by fit, and are kept only here.
    selected: dict[str, list[int]] = transformer._transformer_to_input_indices  # noqa: SLF001
    return selected


def _select_by_position(transformer: Any, layout: list[int]) -> None:
    positions = {name: [layout[column] for column in columns] for name, columns in _selected(transformer).items()}
    transformer._transformer_to_input_indices = positions  # noqa: SLF001
    for attribute in ("transformers", "transformers_"):
        selections = [
            (name, part, positions[name][0] if np.isscalar(columns) else positions[name])
            for name, part, columns in getattr(transformer, attribute)
        ]
        setattr(transformer, attribute, selections)


def _reordered(estimator: Any, layout: list[int]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    order = ColumnTransformer([("declared", "passthrough", layout)])
    return Pipeline([("order", order.fit(np.zeros((1, len(layout))))), ("model", estimator)])


def parts(estimator: Any) -> Iterator[Any]:
    """Every object of scikit-learn inside an estimator, itself included."""
    yield from _parts(estimator, set())


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list | tuple):
        children = list(value)
    elif isinstance(value, np.ndarray) and value.dtype == np.object_:
        children = value.ravel().tolist()
    elif type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__"):
        yield value
        children = list(vars(value).values())
    else:
        return
    for child in children:
        yield from _parts(child, seen)


def _forget_training(part: Any) -> None:
    """Drop what serves fitting only, or asks for data frames."""
    for attribute in ("feature_names_in_", "_sklearn_output_config"):
        vars(part).pop(attribute, None)
    if "n_jobs" in vars(part):
        part.n_jobs = None
    if "calibrated_classifiers_" in vars(part):
        part.estimator = None
    if type(part).__name__ == "_CalibratedClassifier" and type(part.estimator).__name__ == "FrozenEstimator":
        part.estimator = part.estimator.estimator


def _read_empty_strings_as_missing(part: Any) -> None:
    if "categories_" in vars(part):
        part.categories_ = [_renamed_null(part, index) for index in range(len(part.categories_))]
    if "statistics_" in vars(part) and part.statistics_.dtype == np.object_ and _is_null(part.missing_values):
        part.missing_values = ""


def _renamed_null(encoder: Any, index: int) -> Any:
    """The encoder's categories of one column, with the empty string in the place of its null."""
    categories = encoder.categories_[index]
    nulls = [_is_null(category) for category in categories]
    strings = [isinstance(category, str) for category in categories]
    if not any(nulls) or not any(strings):
        return categories
    # A null that is encoded like an unknown category needs no place, and ONNX could not give it that code otherwise.
    missing = getattr(encoder, "encoded_missing_value", None)
    unknown = getattr(encoder, "unknown_value", None)
    if missing is not None and (missing == unknown or (_is_null(missing) and _is_null(unknown))):
        encoder._missing_indices.pop(index, None)  # noqa: SLF001
        return categories[~np.array(nulls)]
    return np.where(nulls, "", categories).astype(np.object_)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
