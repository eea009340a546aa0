"""Plans of rehearsals for the tests of this folder."""

from typing import Any

from router.documents import Experiment
from router.simulation.plans import Rehearsal, read_plan
from router.simulation.settings import Setting, prepare

CLICK = {"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}
REVENUE = {"name": "revenue", "kind": "numeric", "direction": "increase", "role": "primary"}
THOMPSON = {"kind": "thompson", "metric": "click"}
TWO = {"control": {"probability": 0.1}, "new": {"probability": 0.12}}


def even(*names: str) -> dict[str, Any]:
    """Return a split in equal shares."""
    return {"kind": "split", "weights": {name: 1 / len(names) for name in names}}


def plan(
    arms: dict[str, Any] = TWO,
    *,
    allocation: dict[str, Any] = THOMPSON,
    metric: dict[str, Any] = CLICK,
    document: dict[str, Any] | None = None,
    **world: Any,
) -> dict[str, Any]:
    """Return the JSON of a plan with these arms; `document` and `world` are added to its two halves."""
    names = list(arms)
    experiment = {
        "name": "rehearsed",
        "endpoint": "delay",
        "arms": [{"name": name, "model": f"delay@{number}"} for number, name in enumerate(names, start=1)],
        "allocation": allocation,
        "metrics": [metric],
        **(document or {}),
    }
    return {"experiment": experiment, "world": {"arms": arms, "requests_per_hour": 1000, **world}}


def rehearsal(content: Any) -> Rehearsal:
    """Return a plan that needs no ledger."""
    return read_plan(content, _unknown)


def setting(content: Any, days: float, step: int | None = None) -> Setting:
    """Return a plan made ready to be played."""
    return prepare(rehearsal(content), days, step=step)


def _unknown(name: str) -> Experiment:
    raise AssertionError(f"the plan names {name!r}")
