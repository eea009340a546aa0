"""The endpoint `flight-season`: will it arrive late, asked all year of a model that is trained anew as months arrive?

`turnout demo` makes a year of it pass in minutes, so stages take as many flights as they need and hardly any time.
"""

from models.recipe import base_rate, boosting
from orchestration.endpoints.declaration import DriftWindow, Endpoint, Retraining, RolloutPlan
from orchestration.flights.datasets import FEATURES, LATE
from orchestration.flights.season import FLIGHTS_SO_FAR


def _score(score: str, role: str) -> dict[str, str]:
    return {"name": score, "kind": "score", "score": score, "label": LATE, "direction": "decrease", "role": role}


ROLLOUT = RolloutPlan(
    metrics=(_score("brier", "primary"), {**_score("log_loss", "guardrail"), "margin": 0.1}),
    stages=(
        # Beside the champion on the same flights, fewer are needed than in a split, where arms have other flights.
        {"kind": "shadow", "min_decisions": 300, "advance": "better"},
        {"kind": "canary", "share": 0.1, "min_decisions": 50},
        {"kind": "split", "share": 0.5, "advance": "unharmed", "min_decisions": 200},
        {"kind": "champion", "control_share": 0.1, "min_decisions": 200},
    ),
    guardrails={"errors": 0.02, "latency": {"limit_ms": 50, "margin": 0.02}},
    planned_decisions=2_000,
)
"""From the shadow to champion, on evidence."""

ENDPOINT = Endpoint(
    name="flight-season",
    data=FLIGHTS_SO_FAR,
    features=FEATURES,
    label=LATE,
    recipes=(base_rate("carrier"), boosting(iterations=100, leaves=15, leaf_rows=100)),
    champion="base_rate",
    experiments=(),
    rollout=ROLLOUT,
    retraining=Retraining(cooldown_s=60),
    drift=DriftWindow(days=1, units=1_500),
)
