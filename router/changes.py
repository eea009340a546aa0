"""What of an experiment can still change once it has started: nothing that a logged decision was about."""

from collections.abc import Sequence

from router.documents import AnyAllocation, Arm, Bandit, Contextual, Experiment, Interleave
from router.errors import Conflict
from router.ledger.control_writing import ExperimentRecord

_CHANGEABLE = {"allocation", "arms", "holdout", "shadows", "traffic"}


def refuse_changes(record: ExperimentRecord, document: Experiment) -> None:
    """Raise Conflict if a started experiment cannot become this document."""
    _refuse_other_arms(record, document.arms)
    _refuse_other_allocation(record, document.allocation)
    for field in Experiment.__struct_fields__:
        changed = getattr(document, field) != getattr(record.document, field)
        if changed and field not in _CHANGEABLE:
            name = record.document.name
            raise Conflict(
                f"experiment {name!r} is {record.state}: {field!r} can no longer change, only "
                f"{', '.join(sorted(_CHANGEABLE))}; create a new experiment"
            )


def _refuse_other_arms(record: ExperimentRecord, arms: Sequence[Arm]) -> None:
    """Arms may be added at the end, retired, and given other limits; an outcome stays with the arm that it is about."""
    name, known = record.document.name, record.document.arms
    if [(arm.name, arm.model) for arm in arms[: len(known)]] != [(arm.name, arm.model) for arm in known]:
        raise Conflict(
            f"experiment {name!r} is {record.state}: its arms keep their names, models and order; add new ones at the "
            "end, and retire those that are done"
        )
    if len(arms) > len(known) and isinstance(record.document.allocation, Interleave):
        raise Conflict(
            f"experiment {name!r} interleaves the rankings of all its arms: create a new one for another arm"
        )


def _refuse_other_allocation(record: ExperimentRecord, allocation: AnyAllocation) -> None:
    known = record.document.allocation
    started = f"experiment {record.document.name!r} is {record.state}"
    if type(allocation) is not type(known) or (isinstance(known, Interleave) and allocation != known):
        raise Conflict(f"{started}: how it allocates can no longer change; create a new one")
    if isinstance(known, Bandit) and isinstance(allocation, Bandit) and allocation.metric != known.metric:
        raise Conflict(f"{started}: its bandit keeps its metric; create a new one")
    if isinstance(known, Contextual) and isinstance(allocation, Contextual) and allocation.features != known.features:
        raise Conflict(f"{started}: its bandit keeps its features; create a new one")
