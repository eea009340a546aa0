"""Estimators as skops files that may name reviewed types only; nothing here ever unpickles."""

from typing import Any
from zipfile import ZIP_DEFLATED

from models.errors import UntrustedType

# skops trusts scikit-learn's public estimators by itself. Each type below was read for this list: its state is made of
# numbers, arrays and other listed types, and restoring it runs nothing but its own constructor and __setstate__.
REVIEWED: dict[str, frozenset[str]] = {
    "arrays": frozenset({"numpy.dtype"}),
    "calibration": frozenset({"sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"}),
    "ensembles of named parts": frozenset({"sklearn.utils._bunch.Bunch"}),
    "histogram boosting": frozenset({"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"}),
    "trees": frozenset({"sklearn.tree._tree.Tree"}),
}
TRUSTED = frozenset().union(*REVIEWED.values())


def dump(estimator: Any) -> tuple[bytes, tuple[str, ...]]:
    """The skops file of an estimator and the reviewed types that it names; raises UntrustedType."""
    import skops.io

    content: bytes = skops.io.dumps(estimator, compression=ZIP_DEFLATED)
    return content, _reviewed(content, TRUSTED)


def restore(content: bytes, trusted_types: tuple[str, ...]) -> Any:
    """The estimator of a skops file; raises UntrustedType unless its types are both listed here and reviewed."""
    import skops.io

    return skops.io.loads(content, trusted=list(_reviewed(content, TRUSTED.intersection(trusted_types))))


def _reviewed(content: bytes, allowed: frozenset[str]) -> tuple[str, ...]:
    import skops.io

    named = sorted(skops.io.get_untrusted_types(data=content))
    if unknown := [name for name in named if name not in allowed]:
        raise UntrustedType(
            f"type {', '.join(unknown)} is not on the reviewed list: build the estimator from the usual parts of "
            "scikit-learn, or export it to ONNX and import that, or review the type and add it to models/trust.py"
        )
    return tuple(named)
