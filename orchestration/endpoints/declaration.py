"""What one file in this folder says about an endpoint; the asset graph is made from it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import dagster as dg

from models.recipe import Recipe
from orchestration.datasets.declaration import Dataset, Period


class Experiment(NamedTuple):
    """How candidates compete on live traffic; the first arm is the control."""

    name: str
    arms: tuple[tuple[str, str], ...]
    """Name of the arm and the candidate (recipe) that it serves."""
    weights: tuple[float, ...]
    """Share of traffic of each arm; they sum to 1."""
    metrics: tuple[Mapping[str, Any], ...]
    """As the router's API takes them, the primary one first."""

    def document(self, endpoint: str, models: Mapping[str, str]) -> dict[str, Any]:
        """The experiment as `POST /v1/experiments` takes it; `models` has each candidate's `name@version`."""
        names = [name for name, _ in self.arms]
        return {
            "name": self.name,
            "endpoint": endpoint,
            "arms": [{"name": name, "model": models[candidate]} for name, candidate in self.arms],
            "allocation": {"kind": "split", "weights": dict(zip(names, self.weights, strict=True))},
            "metrics": [dict(metric) for metric in self.metrics],
        }


class Endpoint(NamedTuple):
    """An endpoint: where its data come from, what its models see and predict, and how they compete."""

    name: str
    """As clients call it, such as `flight-delay`."""
    datasets: tuple[Dataset, ...]
    """From raw to features, in any order."""
    months: dg.MonthlyPartitionsDefinition
    """The months that the source has."""
    features_from: str
    """The dataset that holds the features and the label."""
    features: tuple[str, ...]
    """Columns that models see, in the order of their signatures."""
    label: str
    """Column to predict: 1 when it happened, 0 when not."""
    row_key: str
    """Column that identifies a row."""
    cluster: str
    """Column of what rows have in common, such as the day's weather: intervals resample its values, not rows."""
    train: Period
    validation: Period
    replay: Period
    recipes: tuple[Recipe, ...]
    """What is trained; each makes a candidate."""
    experiment: Experiment

    @property
    def key(self) -> str:
        """The name as Python and asset keys spell it."""
        return self.name.replace("-", "_")
