"""Which arm a request gets: the pure middle of the router, without server, clock or database."""

from typing import NamedTuple

from router.assignment.audience import Context, takes
from router.assignment.hashing import BUCKETS, bucket
from router.serving.routes import ArmRoute, EndpointRoute, ExperimentRoute


class Assignment(NamedTuple):
    """An arm of an experiment, drawn with probability `slots` / 10 000."""

    experiment: ExperimentRoute
    number: int
    arm: ArmRoute
    slots: int


def assign(route: EndpointRoute, unit: str, context: Context, nonce: bytes) -> Assignment | None:
    """Return the arm that the first experiment which takes the unit draws, or None when none does."""
    for experiment in route.experiments:
        if _takes_unit(experiment, unit, context):
            return draw(experiment, nonce.hex() if experiment.by_request else unit)
    return None


def draw(experiment: ExperimentRoute, value: str) -> Assignment:
    """Look the randomised value's bucket up in the experiment's epoch; the seed is the experiment's name."""
    number = experiment.epoch.table[bucket(experiment.name, value)]
    return Assignment(experiment, number, experiment.arms[number], experiment.counts[number])


def _takes_unit(experiment: ExperimentRoute, unit: str, context: Context) -> bool:
    if experiment.traffic_buckets < BUCKETS and bucket(experiment.traffic_seed, unit) >= experiment.traffic_buckets:
        return False
    return takes(experiment.audience, context)
