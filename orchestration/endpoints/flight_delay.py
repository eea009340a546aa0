"""The endpoint `flight-delay`: will a flight out of New York arrive more than 15 minutes late?"""

from models.recipe import base_rate, boosting, forest, logistic
from orchestration.endpoints.declaration import Endpoint, Experiment
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
)
