"""What one file in this folder says about an endpoint; the asset graph is made from it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from models.recipe import Recipe
from orchestration.datasets.declaration import Data

DEFAULT_OWNERS = ("team:turnout",)
"""Of assets for which nobody else answers."""


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

    @property
    def candidates(self) -> frozenset[str]:
        """Those that take part: in its arms, and as shadows."""
        return frozenset((*(candidate for _, candidate in self.arms), *self.shadows))

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


class RolloutPlan(NamedTuple):
    """How a newly registered candidate walks to champion; everything is as the router's API takes it."""

    metrics: tuple[Mapping[str, Any], ...]
    """One of them primary."""
    stages: tuple[Mapping[str, Any], ...]
    guardrails: Mapping[str, Any] = {}
    error: float = 0.05
    planned_decisions: int = 10_000
    audience: tuple[Mapping[str, Any], ...] = ()
    traffic: float = 1.0
    randomise: Literal["unit", "request"] | None = None

    def document(self, endpoint: str, candidate: str) -> dict[str, Any]:
        """The rollout as `POST /v1/rollouts` takes it; `candidate` is `name@version`, whose only rollout it is."""
        return {
            "name": candidate.replace("@", "-"),
            "endpoint": endpoint,
            "candidate": candidate,
            "metrics": [dict(metric) for metric in self.metrics],
            "stages": [dict(stage) for stage in self.stages],
            "guardrails": dict(self.guardrails),
            "error": self.error,
            "planned_decisions": self.planned_decisions,
            "audience": [dict(condition) for condition in self.audience],
            "traffic": self.traffic,
            "randomise": self.randomise,
        }


class Retraining(NamedTuple):
    """What starts the training of an endpoint's candidates again, and how long one start keeps others away."""

    on_new_data: bool = True
    on_drift: bool = True
    on_decay: bool = True
    cron: str | None = None
    """A schedule besides, such as `0 4 * * 1`, in UTC."""
    cooldown_s: int = 86_400


BY_HAND = Retraining(on_new_data=False, on_drift=False, on_decay=False)
"""Nothing starts it but a person."""


class DriftWindow(NamedTuple):
    """Which of the live traffic is compared with what models were trained on."""

    days: int = 7
    """So many days of exported logs, the newest ones."""
    units: int = 10_000
    """At most, the latest ones."""


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
    owners: tuple[str, ...] = DEFAULT_OWNERS
    """Who answers for its assets: addresses, or teams as `team:name`."""
    score: Literal["log_loss", "brier", "roc_auc"] = "log_loss"
    """Of those on the validation period the one that decides whether a candidate is worse than the champion."""
    latency_ms: float = 10.0
    """Budget for the 99th percentile of single-row predictions."""
    rollout: RolloutPlan | None = None
    """How a newly registered candidate becomes champion; without a plan nothing hands candidates to the router."""
    retraining: Retraining = Retraining()
    drift: DriftWindow = DriftWindow()
    queue: int = 200
    """How many decisions the labelling queue holds at most."""

    @property
    def compared(self) -> frozenset[str]:
        """Candidates that experiments and shadows name: they are registered to be compared, be they worse."""
        return frozenset((self.champion, *self.shadows)).union(*(each.candidates for each in self.experiments))

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
