import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from models.errors import UntrustedType
from models.trust import REVIEWED, dump, restore

ROWS = np.random.default_rng(0).normal(size=(60, 2))
LABELS = (ROWS[:, 0] > 0).astype(int)
FAMILIES = {
    "arrays": SimpleImputer(),
    "calibration": CalibratedClassifierCV(LogisticRegression(), cv=2),
    "ensembles of named parts": VotingClassifier([("a", LogisticRegression())], voting="soft"),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=2),
    "trees": RandomForestClassifier(2, max_depth=2),
}


@pytest.mark.parametrize("family", REVIEWED)
def test_every_reviewed_type_is_needed_by_its_family(family: str) -> None:
    content, trusted_types = dump(FAMILIES[family].fit(ROWS, LABELS))
    assert REVIEWED[family] <= set(trusted_types)
    restored = restore(content, trusted_types)
    method = "transform" if family == "arrays" else "predict_proba"
    np.testing.assert_array_equal(getattr(restored, method)(ROWS), getattr(FAMILIES[family], method)(ROWS))


class Foreign(BaseEstimator):  # type: ignore[misc]
    """Somebody's own estimator."""


def own_function(rows: object) -> object:
    return rows


@pytest.mark.parametrize(
    ("estimator", "name"), [(Foreign(), "Foreign"), (make_pipeline(FunctionTransformer(own_function)), "own_function")]
)
def test_dump_names_a_type_that_nobody_reviewed(estimator: object, name: str) -> None:
    with pytest.raises(UntrustedType, match=rf"type \S*{name} is not on the reviewed list"):
        dump(estimator)


def test_restore_refuses_a_reviewed_type_that_the_manifest_does_not_list() -> None:
    content, _ = dump(RandomForestClassifier(2, max_depth=2).fit(ROWS, LABELS))
    with pytest.raises(UntrustedType, match=r"sklearn\.tree\._tree\.Tree is not on the reviewed list"):
        restore(content, ())


def test_restore_refuses_a_listed_type_that_nobody_reviewed() -> None:
    import skops.io

    content = skops.io.dumps(Foreign())
    (name,) = skops.io.get_untrusted_types(data=content)
    with pytest.raises(UntrustedType, match="Foreign"):
        restore(content, (name,))
