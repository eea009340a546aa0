"""Input rows as a fitted estimator takes them, beside what it predicts for them."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample, UnsupportedModel
from models.estimator import predictions
from models.signature import Batch, Signature

if TYPE_CHECKING:
    import pandas as pd

FEW = 8
MOST_NAMED = 20
UNSEEN = "turnout: never seen"
CATEGORIES = "categories that it was not fitted on: give its encoder handle_unknown='ignore' or 'use_encoded_value'"
NULLS = "rows in which every nullable feature is null: let it impute them, or declare them not nullable"
EVERY_ROW_LACKS = "every row lacks a feature that may not be null"


class Rows(NamedTuple):
    """Rows with exactly the columns that an estimator was fitted on, and its predictions, shape [n]."""

    frame: "pd.DataFrame"
    expected: NDArray[np.float64]

    def servable(self, signature: Signature) -> "Rows":
        """The rows that a request could carry: without nulls where the signature has none; raises InvalidSample."""
        required = [feature.name for feature in signature.features if not feature.nullable]
        keep = self.frame[required].notna().all(axis=1).to_numpy()
        if not keep.any():
            raise InvalidSample(EVERY_ROW_LACKS)
        return Rows(self.frame[keep], self.expected[keep])


def rows_of(
    estimator: Any, given: "pd.DataFrame | NDArray[Any]", feature_names: Sequence[str] | None
) -> tuple[Rows, tuple[str, ...]]:
    """The rows that the estimator predicts: all, or the complete ones when it refuses missing values; and a note."""
    frame = _frame(estimator, given, feature_names)
    if frame.empty:
        raise InvalidSample("there are no rows")
    try:
        return Rows(frame, _ask(estimator, frame)), ()
    except (ValueError, TypeError, KeyError) as error:
        complete = frame.dropna()
        if len(complete) in (0, len(frame)):
            types = ", ".join(f"{name} {dtype}" for name, dtype in frame.dtypes[:MOST_NAMED].items())
            raise InvalidSample(
                f"{type(estimator).__name__} does not predict these rows: {error}; it was given {types}: give columns "
                "of the types that it was fitted on"
            ) from error
    note = f"the estimator refuses missing values: {len(frame) - len(complete)} rows of {len(frame)} were left out"
    return rows_of(estimator, complete, None)[0], (note,)


def few(batch: Batch) -> Batch:
    """Some of the rows, evenly spread."""
    return batch.take(np.unique(np.linspace(0, len(batch.numbers) - 1, FEW).astype(np.intp)))


def with_probes(
    predict: Callable[[Batch], NDArray[np.float64]],
    batch: Batch,
    expected: NDArray[np.float64],
    signature: Signature,
    who: str,
) -> tuple[Batch, NDArray[np.float64]]:
    """The batch and its predictions, with what requests may bring besides at the end; raises UnsupportedModel."""
    batches, answers = [batch], [expected]
    for what, probe in _probes(batch, signature):
        try:
            answers.append(predict(probe))
        except ValueError as error:
            raise UnsupportedModel(f"{who} refuses {what} ({error})") from error
        batches.append(probe)
    numbers, categories = (np.concatenate(column) for column in zip(*batches, strict=True))
    return Batch(numbers, categories), np.concatenate(answers)


def _probes(batch: Batch, signature: Signature) -> Iterator[tuple[str, Batch]]:
    """Rows that any request may carry and no sample need have, each kind with its name and what to do about it."""
    some = few(batch)
    yield CATEGORIES, some._replace(categories=np.full_like(some.categories, UNSEEN))
    null_numbers = np.array([feature.nullable for feature in signature.numbers], dtype=np.bool_)
    null_categories = np.array([feature.nullable for feature in signature.categories], dtype=np.bool_)
    yield (
        NULLS,
        Batch(np.where(null_numbers, np.nan, some.numbers), np.where(null_categories, "", some.categories)),
    )


def _frame(estimator: Any, given: "pd.DataFrame | NDArray[Any]", feature_names: Sequence[str] | None) -> "pd.DataFrame":
    import pandas as pd

    fitted = getattr(estimator, "feature_names_in_", None)
    frame = given if isinstance(given, pd.DataFrame) else _named(np.asarray(given), fitted, feature_names)
    expected = list(frame.columns if fitted is None else fitted)
    if set(expected) != set(frame.columns):
        raise InvalidSample(
            f"the estimator was fitted on columns {expected}, but the rows have {list(frame.columns)}: "
            "give them the same columns, without the label"
        )
    return frame[expected]


def _named(
    array: NDArray[Any], fitted: NDArray[np.object_] | None, feature_names: Sequence[str] | None
) -> "pd.DataFrame":
    import pandas as pd

    if array.ndim != 2:
        raise InvalidSample(f"an array of rows has two dimensions, rows and features, not {array.ndim}: give a frame")
    default = [f"f{column}" for column in range(array.shape[1])] if fitted is None else list(fitted)
    names = default if feature_names is None else list(feature_names)
    if len(names) != array.shape[1]:
        raise InvalidSample(f"{len(names)} feature names do not fit {array.shape[1]} columns")
    return pd.DataFrame(array, columns=names)


def _ask(estimator: Any, frame: "pd.DataFrame") -> NDArray[np.float64]:
    expected = predictions(estimator, frame if hasattr(estimator, "feature_names_in_") else frame.to_numpy())
    finite = np.isfinite(expected)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidSample(f"{type(estimator).__name__} predicts {expected[row]} for row {row}")
    return expected
