"""Which arm a request gets: the pure middle of the router, without server, clock or database."""

from typing import NamedTuple

from router.allocation.bandit import drawn_from
from router.assignment.audience import Context, takes
from router.assignment.epochs import HOLDOUT, INTERLEAVED
from router.assignment.hashing import BUCKETS, bucket
from router.decision_id import FORCED
from router.documents import HOLDOUT_NAME, INTERLEAVED_NAME
from router.errors import InvalidRequest
from router.serving.requests import FORCED_ARM_HEADER
from router.serving.routes import ArmRoute, EndpointRoute, ExperimentRoute


class Assignment(NamedTuple):
    """What an experiment gives a unit: the arm of this number, or HOLDOUT, drawn in `epoch` with `slots` / 10 000."""

    experiment: ExperimentRoute
    epoch: int
    number: int
    slots: int

    @property
    def arm(self) -> ArmRoute | None:
        """The arm, or None in the holdout, which the champion serves, and for a list that mixes all arms."""
        return None if self.number in {HOLDOUT, INTERLEAVED} else self.experiment.arms[self.number]

    @property
    def is_interleaved(self) -> bool:
        """Whether the rankings of all arms are mixed."""
        return self.number == INTERLEAVED

    @property
    def name(self) -> str:
        """What replies call it."""
        if self.arm is not None:
            return self.arm.name
        return INTERLEAVED_NAME if self.is_interleaved else HOLDOUT_NAME


def assign(route: EndpointRoute, unit: str, context: Context, nonce: bytes) -> Assignment | None:
    """Return what the first experiment that takes the unit draws, or None when none does."""
    for experiment in route.experiments:
        if _takes_unit(experiment, unit, context):
            return draw(experiment, nonce.hex() if experiment.by_request else unit, context)
    return None


def draw(experiment: ExperimentRoute, value: str, context: Context) -> Assignment:
    """Look the randomised value's bucket up in the experiment's epoch; the seed is the experiment's name.

    Where the context decides, the table is made for this request.
    """
    epoch, place = experiment.epoch, bucket(experiment.name, value)
    if experiment.contexts is not None:
        counts = experiment.contexts.counts(context)
        number = drawn_from(counts, place)
        return Assignment(experiment, epoch.number, number, counts[number])
    number = epoch.table[place]
    return Assignment(experiment, epoch.number, number, experiment.counts[number])


def force(route: EndpointRoute, text: str) -> Assignment:
    """Return the arm that a client names, as `arm` or `experiment/arm`: the first running experiment's that has it.

    Raises:
        InvalidRequest: No running experiment of the endpoint has such an arm.
    """
    experiment_name, _, arm_name = text.rpartition("/")
    for experiment in route.experiments:
        for number, arm in enumerate(experiment.arms):
            if arm.name == arm_name and experiment_name in {"", experiment.name}:
                return Assignment(experiment, FORCED, number, BUCKETS)
    raise InvalidRequest(_unknown_arm(route, text), field=FORCED_ARM_HEADER)


def _takes_unit(experiment: ExperimentRoute, unit: str, context: Context) -> bool:
    if experiment.traffic_buckets < BUCKETS and bucket(experiment.traffic_seed, unit) >= experiment.traffic_buckets:
        return False
    return not experiment.audience or takes(experiment.audience, context)


def _unknown_arm(route: EndpointRoute, text: str) -> str:
    known = [f"{experiment.name}/{arm.name}" for experiment in route.experiments for arm in experiment.arms]
    shown = text if len(text) <= 130 else f"{text[:127]}..."
    return (
        f"{FORCED_ARM_HEADER} names {shown!r}, which no running experiment of endpoint {route.name!r} has; "
        f"known arms: {', '.join(known) or 'none, since no experiment is running'}"
    )
