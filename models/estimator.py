"""What a fitted scikit-learn estimator predicts: one probability or one number per row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UnsupportedModel
from models.signature import Output

OTHERS = ": publish a fitted one, or export the model to ONNX and import that (turnout model import)"


def output_of(estimator: Any) -> Output:
    """A binary classifier gives a probability, a regressor a number; raises UnsupportedModel for all else."""
    kind = type(estimator).__name__
    is_classifier, is_regressor = _sort(estimator)
    if is_classifier:
        _check_classes(kind, getattr(estimator, "classes_", None))
        if not hasattr(estimator, "predict_proba"):
            raise UnsupportedModel(f"{kind} gives no probability: wrap it in CalibratedClassifierCV and fit again")
        return "probability"
    if is_regressor:
        return "number"
    raise UnsupportedModel(f"{kind} is neither a classifier nor a regressor of scikit-learn{OTHERS}")


def predictions(estimator: Any, rows: Any) -> NDArray[np.float64]:
    """The probability of class 1, or the predicted number, of each row; shape [n]."""
    from sklearn.base import is_classifier

    values = estimator.predict_proba(rows)[:, 1:] if is_classifier(estimator) else estimator.predict(rows)
    array = np.asarray(values, dtype=np.float64).reshape(len(rows), -1)
    if array.shape[1] != 1:
        raise UnsupportedModel(f"{type(estimator).__name__} predicts {array.shape[1]} numbers per row, not one")
    return array[:, 0]


def _sort(estimator: Any) -> tuple[bool, bool]:
    """Return whether it is a classifier, and whether it is a regressor; raises UnsupportedModel for foreign objects."""
    from sklearn.base import is_classifier, is_regressor

    try:
        return is_classifier(estimator), is_regressor(estimator)
    except (AttributeError, TypeError) as error:
        raise UnsupportedModel(f"{estimator!r:.80} is no estimator of scikit-learn{OTHERS}") from error


def _check_classes(kind: str, classes: Any) -> None:
    if classes is None:
        raise UnsupportedModel(f"{kind} has no classes: fit it before publishing")
    found = [getattr(value, "tolist", lambda value=value: value)() for value in classes]
    if found != [0, 1]:
        raise UnsupportedModel(
            f"{kind} has the classes {found}: only two classes, 0 and 1 or False and True, are supported; "
            "fit it on a label of that form"
        )
