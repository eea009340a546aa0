"""What becomes of an outcome, given what was said before and what was decided."""

from collections.abc import Sequence

from router.decision_id import encode
from router.ledger.contributions import Fold, Statements
from router.ledger.decided import Decided
from router.ledger.records import ACCEPTED, DUPLICATE, Observation, Receipt

_NAME_ONE = "name a candidate by the `item` that the reply has for it"


def receipt_of(observation: Observation, said: Statements, decided: Decided | None, folded: Sequence[Fold]) -> Receipt:
    """Return the receipt of an outcome that feeds these statistics, after what was `said` about its item before."""
    if decided is not None and decided.shown is not None and not observation.itemised:
        return Receipt("rejected", f"item is missing: the decision is a list, so {_NAME_ONE}", "item")
    known = said.get((observation.outcome_id, observation.version))
    if known is not None:
        return DUPLICATE if known.value == observation.value else _contradiction(observation, known.value)
    if decided is not None and not decided.has(observation.item):
        return Receipt(
            "rejected", f"item {observation.item} is out of range: the decision has {_items(decided)}", "item"
        )
    if decided is not None and not decided.counts(observation.item, folded):
        nothing = f"no {observation.metric!r} can have come of it"
        return Receipt("rejected", f"item {observation.item} was not shown, so that {nothing}; {_NAME_ONE}", "item")
    return ACCEPTED


def _items(decided: Decided) -> str:
    count, what = len(decided.predictions), "input" if decided.shown is None else "candidate"
    return f"1 {what}, which is item 0" if count == 1 else f"{count} {what}s, 0 to {count - 1}"


def _contradiction(observation: Observation, recorded: float | None) -> Receipt:
    stands = "retracted" if recorded is None else f"recorded as {recorded:g}"
    says = "a retraction" if observation.value is None else f"{observation.value:g}"
    return Receipt(
        "rejected",
        f"{observation.metric!r} of decision {encode(observation.decision_id)!r}, item {observation.item}, is already "
        f"{stands} in version {observation.version}, not {says}; correct it with a higher version, or give each of "
        "several outcomes its own id",
    )


def happened_ms(observation: Observation, said: Statements) -> int:
    """Return when it happened: whoever corrects a value says nothing about that, unless they do."""
    if observation.dated:
        return observation.occurred_ms
    corrected = (
        (version, stated.occurred_ms)
        for (outcome_id, version), stated in said.items()
        if outcome_id == observation.outcome_id and version < observation.version
    )
    return max(corrected, default=(0, observation.occurred_ms))[1]
