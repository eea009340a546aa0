"""What outcomes need to know of their decision, and whom an item's outcomes are credited to."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from router.assignment.audience import Context, Scalar
from router.assignment.epochs import INTERLEAVED
from router.documents import ScoreMetric
from router.ledger import schema
from router.ledger.contributions import Fold
from router.ledger.statements import select_by_key


class Draw(msgspec.Struct, frozen=True):
    """How an interleaved list came about.

    What every arm scored the candidates [arms, candidates]; whose pick each place is, where a place that all arms would
    have filled alike has the team INTERLEAVED; and what an outcome at each place gives to each arm [places, arms].
    """

    scores: tuple[tuple[float, ...], ...]
    teams: tuple[int, ...]
    credits: tuple[tuple[float, ...], ...]


class Decided(NamedTuple):
    """A decision as its outcomes need it."""

    predictions: Sequence[float | None]
    context: str | None
    shown: str | None
    draw: str | None
    unit: str = ""
    propensity: float = 1.0

    def prediction(self, item: int) -> float | None:
        """Return what was predicted for an item; nothing if the decision has no such item, or ran no model."""
        return self.predictions[item] if self.has(item) else None

    def has(self, item: int) -> bool:
        """Return whether the decision has such an item."""
        return 0 <= item < len(self.predictions)

    def showed(self, item: int) -> bool:
        """Return whether the client saw the item: an input always, a candidate if it was listed."""
        return self.has(item) and (self.shown is None or item in read_shown(self.shown))

    def counts(self, item: int, folded: Iterable[Fold]) -> bool:
        """Return whether outcomes of an item are taken: what was not shown has scores, but nothing can come of it."""
        return self.showed(item) or (self.has(item) and all(isinstance(fold.metric, ScoreMetric) for fold in folded))


def known_decisions(connection: Connection, ids: Collection[bytes]) -> dict[bytes, Decided]:
    """Return what is in the ledger of these decisions."""
    rows = select_by_key(connection, schema.decisions, ("id", *Decided._fields), "id", ids)
    return {key: Decided(read_predictions(predictions), *rest) for key, predictions, *rest in rows}


def credited_arms(arm: int, item: int, decided: Decided) -> Mapping[int, float]:
    """Return the arms that outcomes of an item count for, and how much of each they get.

    That is the decision's arm, wholly; of an interleaved list, those that the item speaks for, or else INTERLEAVED.
    """
    if arm == INTERLEAVED and decided.shown is not None and decided.draw is not None:
        shown = read_shown(decided.shown)
        if item in shown:
            given = enumerate(read_draw(decided.draw).credits[shown.index(item)])
            return {number: credit for number, credit in given if credit} or {INTERLEAVED: 1.0}
    return {arm: 1.0}


def items_of(predictions: str, shown: str | None) -> int:
    """Return how many items a decision has: inputs, or the candidates that it showed."""
    # Neither has commas but those between its numbers.
    return (predictions if shown is None else shown).count(",") + 1


read_predictions = msgspec.json.Decoder(list[float | None]).decode
read_shown = msgspec.json.Decoder(list[int]).decode
read_draw = msgspec.json.Decoder(Draw).decode
read_context = msgspec.json.Decoder(dict[str, Scalar]).decode

Read = Mapping[bytes, Decided]


def context_of(decided: Decided) -> Context:
    """Return the context that came with the request."""
    return {} if decided.context is None else read_context(decided.context)
