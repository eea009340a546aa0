"""The endpoint `flight-delay`: will a flight out of New York arrive more than 15 minutes late?"""

from models.recipe import base_rate, boosting, forest, logistic
from orchestration.endpoints.declaration import BY_HAND, Endpoint, Experiment, RolloutPlan
from orchestration.flights.datasets import FEATURES, FLIGHTS, LATE


def _score(score: str, direction: str, role: str) -> dict[str, str]:
    return {"name": score, "kind": "score", "score": score, "label": LATE, "direction": direction, "role": role}


def _flights_of(month: str) -> tuple[dict[str, str], ...]:
    return ({"attribute": "month", "op": "eq", "value": month},)


SPLIT = Experiment(
    name="boosting-vs-logistic",
    arms=(("control", "logistic"), ("boosting", "boosting")),
    allocation={"kind": "split", "weights": {"control": 0.5, "boosting": 0.5}},
    metrics=(
        _score("brier", "decrease", "primary"),
        _score("log_loss", "decrease", "secondary"),
        _score("correct", "increase", "secondary"),
    ),
    shadows=("forest",),
    planned_decisions=25_000,
    audience=_flights_of("2013-05"),
)
"""Two models at fixed shares, and a third one in the shadow."""

BANDIT = Experiment(
    name="four-delay-models",
    arms=(("control", "logistic"), ("base-rate", "base_rate"), ("boosting", "boosting"), ("forest", "forest")),
    allocation={"kind": "thompson", "metric": "brier", "min_matured": 100, "update_every_s": 0.5},
    metrics=(_score("brier", "decrease", "primary"),),
    planned_decisions=12_000,
    audience=_flights_of("2013-06"),
)
"""All four models, whose shares follow what comes of their predictions."""

ROLLOUT = RolloutPlan(
    metrics=(_score("brier", "decrease", "primary"), {**_score("log_loss", "decrease", "guardrail"), "margin": 0.02}),
    stages=(
        {"kind": "shadow", "min_decisions": 500, "min_s": 60, "max_s": 86_400},
        {"kind": "canary", "share": 0.05, "min_s": 60},
        {"kind": "split", "share": 0.5},
        {"kind": "champion", "control_share": 0.05, "min_s": 3_600},
    ),
    guardrails={"errors": 0.01, "latency": {"limit_ms": 50, "margin": 0.01}},
    planned_decisions=12_000,
)
"""From the shadow to champion, on evidence."""

ENDPOINT = Endpoint(
    name="flight-delay",
    data=FLIGHTS,
    features=FEATURES,
    label=LATE,
    # Moderate sizes: all four are trained in about a minute on two cores, and larger ones were not better.
    recipes=(
        base_rate("carrier"),
        logistic(),
        boosting(iterations=100, leaves=15, leaf_rows=100),
        forest(trees=60, depth=10, leaf_rows=50),
    ),
    champion="logistic",
    experiments=(SPLIT, BANDIT),
    # Experiments compare these very versions; at `flight-season` models are trained anew.
    retraining=BY_HAND,
    rollout=ROLLOUT,
)
