"""Whether every list is in the order of its scores, or what its draw mixes of the arms' rankings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from router.assignment.epochs import INTERLEAVED
from router.documents import Interleave
from router.ledger.decided import Draw, read_draw, read_predictions, read_shown
from router.serving.ranking import Listed, mixed, ranked
from router.verification.draws import Mismatch
from router.verification.experiments import Known


class Shown(NamedTuple):
    """What is said about the list of one decision."""

    endpoint: str
    experiment_id: int
    arm: int
    fallback: str | None
    inputs: str
    predictions: str
    shown: str | None
    draw: str | None
    value: str
    """What the draw was made with: the unit, or the decision's nonce in hexadecimal."""


_NO_MODEL = ("[{}]", "[null]")
"""Inputs and predictions of a decision that told a client its arm and ran no model."""


def rank_mismatches(
    place: int, row: Shown, kinds: Mapping[str, str], experiments: Mapping[int, Known]
) -> Iterator[Mismatch]:
    """Yield what a list should be and is not."""
    if kinds.get(row.endpoint) != "rank" or (row.inputs, row.predictions) == _NO_MODEL:
        for what, found in (("shown", row.shown), ("draw", row.draw)):
            if found is not None:
                yield Mismatch(place, what, None, found)
        return
    try:
        shown, draw = read_shown(row.shown or ""), None if row.draw is None else read_draw(row.draw)
        predictions = read_predictions(row.predictions)
    except msgspec.DecodeError as error:
        yield Mismatch(place, "shown", "a list of candidates and how it was drawn", error)
        return
    if not 0 < len(shown) <= len(predictions):
        yield Mismatch(place, "shown", f"1 to {len(predictions)} candidates", row.shown)
        return
    known = experiments.get(row.experiment_id) if row.arm == INTERLEAVED and row.fallback is None else None
    expected = _ranked(predictions, len(shown)) if known is None else _mixed(known, row, draw, len(shown))
    if expected is None:
        yield Mismatch(place, "draw", "a score of every arm for each candidate", row.draw)
    elif list(expected.shown) != shown:
        yield Mismatch(place, "shown", list(expected.shown), row.shown)
    elif expected.draw != draw:
        yield Mismatch(place, "draw", expected.draw, row.draw)


def _ranked(predictions: Sequence[float | None], length: int) -> Listed | None:
    scores = [score for score in predictions if score is not None]
    return ranked(scores, length) if len(scores) == len(predictions) else None


def _mixed(known: Known, row: Shown, draw: Draw | None, length: int) -> Listed | None:
    allocation = known.document.allocation
    candidates = row.predictions.count(",") + 1
    if draw is None or not isinstance(allocation, Interleave):
        return None
    if [len(scores) for scores in draw.scores] != [candidates] * len(known.document.arms):
        return None
    return mixed(allocation, known.name, row.value, draw.scores, length)
