"""Small recipes for binary labels: from a signature to an unfitted scikit-learn pipeline.

Every pipeline selects its columns by name in a first step, takes missing numbers and categories where the signature
allows them, serves categories that it has never seen, and consists of parts that convert to ONNX without loss.
Trees are given numbers as they come: scaling in float32 would carry values across the edges of splits.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models.errors import InvalidSample
from models.signature import Feature, Signature


class Recipe(NamedTuple):
    """A named way of building an estimator; the parameters are recorded in the manifest."""

    name: str
    params: Mapping[str, Any]
    build: Callable[[Signature], Any]
    """Gives an unfitted pipeline whose last step is a classifier."""


def base_rate(by: str, *, shrinkage: float = 1.0) -> Recipe:
    """The label's rate in each category of one feature, drawn towards the overall rate where there is little data."""

    def build(signature: Signature) -> Any:
        from sklearn.linear_model import LogisticRegression

        chosen = tuple(feature for feature in signature.categories if feature.name == by)
        if not chosen:
            raise InvalidSample(f"base_rate needs the category {by!r}, which the signature does not have")
        return _pipeline([_one_hot(chosen)], LogisticRegression(C=1 / shrinkage, max_iter=1000))

    return Recipe("base_rate", {"by": by, "shrinkage": shrinkage}, build)


def logistic(*, inverse_penalty: float = 1.0) -> Recipe:
    """Logistic regression on standardised numbers, medians in the place of nulls, and one-hot categories."""

    def build(signature: Signature) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        branches = [_numbers(signature.numbers, [StandardScaler()]), _one_hot(signature.categories)]
        return _pipeline(branches, LogisticRegression(C=inverse_penalty, max_iter=1000))

    return Recipe("logistic", {"inverse_penalty": inverse_penalty}, build)


def boosting(
    *, iterations: int = 200, learning_rate: float = 0.06, leaves: int = 31, leaf_rows: int = 50, seed: int = 0
) -> Recipe:
    """Histogram gradient boosting on numbers, nulls included, and ordinal categories."""

    def build(signature: Signature) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(
            max_iter=iterations,
            learning_rate=learning_rate,
            max_leaf_nodes=leaves,
            min_samples_leaf=leaf_rows,
            early_stopping=False,
            random_state=seed,
        )
        return _pipeline([("numbers", "passthrough", _names(signature.numbers)), _ordinal(signature.categories)], model)

    params = {"iterations": iterations, "learning_rate": learning_rate, "leaves": leaves, "leaf_rows": leaf_rows}
    return Recipe("boosting", params | {"seed": seed}, build)


def forest(*, trees: int = 100, depth: int = 12, leaf_rows: int = 20, seed: int = 0) -> Recipe:
    """A random forest, kept small enough to be loaded and asked quickly."""

    def build(signature: Signature) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        model = RandomForestClassifier(trees, max_depth=depth, min_samples_leaf=leaf_rows, n_jobs=-1, random_state=seed)
        return _pipeline([_numbers(signature.numbers, []), _ordinal(signature.categories)], model)

    return Recipe("forest", {"trees": trees, "depth": depth, "leaf_rows": leaf_rows, "seed": seed}, build)


Branch = tuple[str, Any, list[str]]


def _pipeline(branches: list[Branch], model: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    return Pipeline([("features", ColumnTransformer([branch for branch in branches if branch[2]])), ("model", model)])


def _names(features: tuple[Feature, ...]) -> list[str]:
    return [feature.name for feature in features]


def _numbers(features: tuple[Feature, ...], steps: list[Any]) -> Branch:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    if any(feature.nullable for feature in features):
        steps = [SimpleImputer(strategy="median", keep_empty_features=True), *steps]
    return ("numbers", make_pipeline(*steps) if steps else "passthrough", _names(features))


def _one_hot(features: tuple[Feature, ...]) -> Branch:
    from sklearn.preprocessing import OneHotEncoder

    return ("categories", OneHotEncoder(handle_unknown="ignore"), _names(features))


def _ordinal(features: tuple[Feature, ...]) -> Branch:
    from sklearn.preprocessing import OrdinalEncoder

    # ONNX has one default code, so a missing category shares that of an unknown one.
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    return ("categories", encoder, _names(features))
