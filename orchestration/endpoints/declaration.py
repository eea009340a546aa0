"""What one file in this folder says about an endpoint; the asset graph is made from it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from models.recipe import Recipe
from orchestration.datasets.declaration import Data


class Experiment(NamedTuple):
    """How candidates compete on live traffic; the first arm is the control."""

    name: str
    arms: tuple[tuple[str, str], ...]
    """Name of the arm and the candidate (recipe) that it serves."""
    allocation: Mapping[str, Any]
    """As the router's API takes it."""
    metrics: tuple[Mapping[str, Any], ...]
    """As the router's API takes them, the primary one first."""
    shadows: tuple[str, ...] = ()
    """Candidates that see the experiment's requests after their reply."""
    audience: tuple[Mapping[str, Any], ...] = ()
    """Conditions on the context of requests, as the router's API takes them."""
    planned_decisions: int = 10_000
    """At which the result's intervals shall be narrowest; fixed before the experiment starts."""

    def document(self, endpoint: str, models: Mapping[str, str]) -> dict[str, Any]:
        """The experiment as `POST /v1/experiments` takes it; `models` has each candidate's `name@version`."""
        return {
            "name": self.name,
            "endpoint": endpoint,
            "arms": [{"name": name, "model": models[candidate]} for name, candidate in self.arms],
            "allocation": dict(self.allocation),
            "metrics": [dict(metric) for metric in self.metrics],
            "shadows": [models[candidate] for candidate in self.shadows],
            "audience": [dict(condition) for condition in self.audience],
            "planned_decisions": self.planned_decisions,
        }


class Endpoint(NamedTuple):
    """An endpoint: where its data come from, what its models see and predict, and how they compete."""

    name: str
    """As clients call it, such as `flight-delay`."""
    data: Data
    features: tuple[str, ...]
    """Columns that models see, in the order of their signatures."""
    label: str
    """Column to predict: 1 when it happened, 0 when not."""
    recipes: tuple[Recipe, ...]
    """What is trained; each makes a candidate."""
    champion: str
    """The candidate that serves when no experiment applies."""
    experiments: tuple[Experiment, ...]
    """In the order in which requests are offered to them."""
    kind: Literal["predict", "rank"] = "predict"
    """What the router does with predictions: return them, or put candidates in their order, highest first."""
    shadows: tuple[str, ...] = ()
    """Candidates that see every request after its reply."""

    @property
    def key(self) -> str:
        """The name as Python and asset keys spell it."""
        return self.name.replace("-", "_")

    def document(self, models: Mapping[str, str]) -> dict[str, Any]:
        """The endpoint as `POST /v1/endpoints` takes it; `models` has each candidate's `name@version`."""
        return {
            "name": self.name,
            "kind": self.kind,
            "champion": models[self.champion],
            "shadows": [models[candidate] for candidate in self.shadows],
        }
