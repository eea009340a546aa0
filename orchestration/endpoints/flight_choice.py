"""The endpoint `flight-choice`: the flights of one route and day, most likely on time first.

Models score each flight by the probability that it arrives at most 15 minutes late, from the features and the data of
`flight-delay`. Who sees the lists in the demo is simulated (`orchestration.flights.travellers`); the delays are real.
"""

from models.recipe import base_rate, boosting
from orchestration.endpoints.declaration import BY_HAND, Endpoint, Experiment, RolloutPlan
from orchestration.flights.datasets import FEATURES, FLIGHTS, ON_TIME
from orchestration.flights.travellers import BOOKED, SATISFIED

CHOICE = Experiment(
    name="boosting-vs-base-rate",
    arms=(("control", "base_rate"), ("boosting", "boosting")),
    allocation={"kind": "interleave", "method": "team_draft", "length": 5},
    metrics=(
        {"name": SATISFIED, "kind": "binary", "direction": "increase", "role": "primary"},
        {"name": BOOKED, "kind": "binary", "direction": "increase", "role": "secondary"},
    ),
    planned_decisions=4_000,
)
"""Two rankings mixed in every list."""

ROLLOUT = RolloutPlan(
    metrics=CHOICE.metrics,
    stages=({"kind": "interleave"}, {"kind": "champion", "control_share": 0.05, "min_s": 3_600}),
    guardrails={"errors": 0.01},
    planned_decisions=4_000,
)
"""Both rankings in every list, until one has won."""

ENDPOINT = Endpoint(
    name="flight-choice",
    kind="rank",
    data=FLIGHTS,
    features=FEATURES,
    label=ON_TIME,
    recipes=(base_rate("carrier"), boosting(iterations=100, leaves=15, leaf_rows=100)),
    champion="base_rate",
    experiments=(CHOICE,),
    # Experiments compare these very versions; at `flight-season` models are trained anew.
    retraining=BY_HAND,
    rollout=ROLLOUT,
)
