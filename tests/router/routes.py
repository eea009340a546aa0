"""Small routes for the tests of this folder."""

from collections import Counter
from typing import Any

from analysis.statistics.buckets import quantise
from router.assignment.epochs import Epoch, fresh, with_holdout
from router.assignment.hashing import traffic_seed
from router.documents import Breaker
from router.serving.routes import ArmRoute, EndpointRoute, ExperimentRoute, Limits, ServedModel

LIMITS = Limits(0.2, 64, Breaker())


def served(reference: str) -> ServedModel:
    """Return a model that is not loaded."""
    return ServedModel(reference, None, None, inline=True)


def experiment(
    name: str = "test", weights: tuple[float, ...] = (0.7, 0.3), *, holdout: float = 0.0, **fields: Any
) -> ExperimentRoute:
    """Return an experiment with arms `arm-0`, `arm-1` and so on."""
    shares = (*((1 - holdout) * weight for weight in weights), holdout)
    epoch = fields.pop("epoch", Epoch(1, fresh(with_holdout(quantise(shares)))))
    values: dict[str, Any] = {
        "id": 1,
        "name": name,
        "traffic_seed": traffic_seed(name),
        "traffic_buckets": epoch.traffic,
        "audience": (),
        "by_request": False,
        "sticky": False,
        "epoch": epoch,
        "counts": Counter(epoch.table),
        "arms": tuple(ArmRoute(f"arm-{number}", served(f"m@{number + 1}"), LIMITS) for number in range(len(weights))),
    }
    return ExperimentRoute(**{**values, **fields})


def endpoint(*experiments: ExperimentRoute) -> EndpointRoute:
    """Return an endpoint whose champion is m@1."""
    return EndpointRoute("delay", LIMITS, served("m@1"), None, None, experiments)  # type: ignore[arg-type]
