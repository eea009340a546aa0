"""Whether the arms of a chunk of decisions, or of first assignments, are what their epochs draw."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from router.allocation.bandit import Contexts, drawn_from, read_basis
from router.assignment.audience import Context
from router.assignment.hashing import BUCKETS, traffic_seed
from router.assignment.vectorised import buckets
from router.documents import Contextual
from router.verification.epochs import Drawable, Epochs
from router.verification.experiments import Known
from router.verification.ids import Integers


class Draws(NamedTuple):
    """What is said about draws of one experiment, one value each."""

    units: Sequence[str]
    values: Sequence[str]
    """What was drawn with: the unit, or the decision's nonce in hexadecimal."""
    epochs: Integers
    arms: Integers
    slots: Integers
    contexts: Sequence[Context | None] = ()
    """What came with the requests, where the experiment looks at that; None where it cannot be read."""


class Mismatch(NamedTuple):
    """A draw, by its place, that is not what its epoch says."""

    place: int
    what: str
    expected: object
    found: object


def mismatches(known: Known, epochs: Epochs, draws: Draws) -> Iterator[Mismatch]:
    """Yield what differs when the draws are made again."""
    drawn = buckets(known.document.name, draws.values)
    for number in np.unique(draws.epochs).tolist():
        places = np.flatnonzero(draws.epochs == number)
        epoch = epochs.find(known.id, number)
        if epoch is None:
            for place in places.tolist():
                yield Mismatch(place, "epoch", f"a sound epoch of experiment {known.name!r}", number)
        else:
            if isinstance(known.document.allocation, Contextual):
                yield from _by_context(known, epoch, number, draws, drawn, places)
            else:
                yield from _in_epoch(epoch, number, draws, drawn, places)
            yield from _beyond_traffic(known, epoch, number, draws, places)


def _by_context(
    known: Known, epoch: Drawable, number: int, draws: Draws, drawn: npt.NDArray[np.uint32], places: Integers
) -> Iterator[Mismatch]:
    """Yield the draws that the epoch's posteriors and the request's context do not give."""
    try:
        contexts = Contexts(known.document, read_basis(epoch.basis or ""))
    except (msgspec.DecodeError, ValueError, AssertionError):
        for place in places.tolist():
            yield Mismatch(place, "epoch", f"one with a sound basis, of experiment {known.name!r}", number)
        return
    for place in places.tolist():
        context = draws.contexts[place]
        if context is None:
            continue
        counts, bucket = contexts.counts(context), int(drawn[place])
        arm, found = drawn_from(counts, bucket), int(draws.arms[place])
        if arm != found:
            yield Mismatch(place, "arm", f"{arm} (bucket {bucket} in this context, epoch {number})", found)
        if (share := counts.get(found, 0)) != draws.slots[place]:
            what = f"{share / BUCKETS} (arm {found} in this context, epoch {number})"
            yield Mismatch(place, "propensity", what, draws.slots[place] / BUCKETS)


def _in_epoch(
    epoch: Drawable, number: int, draws: Draws, drawn: npt.NDArray[np.uint32], places: Integers
) -> Iterator[Mismatch]:
    mine, arms, slots = drawn[places], draws.arms[places], draws.slots[places]
    expected = epoch.table[mine]
    for index in np.flatnonzero(expected != arms).tolist():
        bucket = f"bucket {mine[index]} of epoch {number}"
        yield Mismatch(int(places[index]), "arm", f"{expected[index]} ({bucket})", arms[index])
    shares = epoch.counts[arms]
    for index in np.flatnonzero(shares != slots).tolist():
        share = f"{shares[index] / BUCKETS} (arm {arms[index]} of epoch {number})"
        yield Mismatch(int(places[index]), "propensity", share, slots[index] / BUCKETS)


def _beyond_traffic(known: Known, epoch: Drawable, number: int, draws: Draws, places: Integers) -> Iterator[Mismatch]:
    """Yield the units that the experiment should not have taken."""
    if epoch.traffic >= BUCKETS:
        return
    units = [draws.units[place] for place in places.tolist()]
    taken = buckets(traffic_seed(known.document.name), units)
    for index in np.flatnonzero(taken >= epoch.traffic).tolist():
        expected = f"a traffic bucket below {epoch.traffic} (epoch {number})"
        yield Mismatch(int(places[index]), "unit", expected, f"{taken[index]} of unit {units[index]!r}")
