"""Effects within segments of units, such as countries, without finding one by looking at many.

To be read once, at the planned end: the tests are fixed-horizon ones. A segment is a value of one field of the context,
that of the unit's first decision, which no arm had a hand in.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from analysis import contexts, queries
from analysis.errors import UnknownField, UnknownMetric
from analysis.evidence import broken_split, insufficient, judge, missing_evidence
from analysis.experiment import AnyMetric, Arm, Experiment
from analysis.fixed_horizon import Effect, Sample, compare, degrees_of_freedom, read_samples, standard_error
from analysis.queries import Log
from analysis.source import Source
from analysis.split_check import UNTESTED, SplitCheck
from analysis.statistics.e_values import benjamini_hochberg, holm
from analysis.statistics.heterogeneity import heterogeneity

MOST_SEGMENTS = 20
"""Values of a field that are segments of their own, those with most units; the others are one together."""

OTHER, MISSING = "(other)", "(none)"
"""What the segments of all other values, and of units without the field, are called."""

_PLACES = MOST_SEGMENTS + 2
_UNKNOWN = Effect(*[math.nan] * len(Effect._fields))


class Segment(NamedTuple):
    """One treatment against the control within one segment; nan where they cannot be compared.

    The adjusted p-value is the false-discovery rate at which the effect would be called one, among all rows.
    """

    metric: str
    arm: str
    segment: str
    control_units: int
    units: int
    control_mean: float
    mean: float
    difference: float
    difference_low: float
    difference_high: float
    lift_percent: float
    lift_low_percent: float
    lift_high_percent: float
    p_value: float
    adjusted_p_value: float
    confidence: float
    verdict: Literal["reference", "better", "worse", "insufficient"]
    reason: str


class Spread(NamedTuple):
    """Whether a treatment's effect differs between segments: Cochran's Q over those that can be compared."""

    arm: str
    segments: int
    q: float
    p_value: float
    adjusted_p_value: float
    """Over treatments, by Holm."""
    unexplained_percent: float
    """The part of the spread between segments that chance does not explain (I squared)."""


class Segments(NamedTuple):
    """The effects on one metric within the segments of one field, and a sentence on what may be said of them."""

    rows: tuple[Segment, ...]
    spreads: tuple[Spread, ...]
    judgement: str

    def frame(self) -> pd.DataFrame:
        """One row per treatment and segment, those with most units first; the columns are those of `Segment`."""
        return pd.DataFrame(self.rows, columns=pd.Index(Segment._fields))


class _Cell(NamedTuple):
    arm: Arm
    label: str
    control: Sample | None
    treatment: Sample | None
    gap: str | None
    """Why the two cannot be compared, or None."""


def compare_segments(
    source: Source,
    log: Log,
    experiment: Experiment,
    metric: AnyMetric,
    field: str,
    *,
    alpha: float = 0.05,
    split: SplitCheck = UNTESTED,
) -> Segments:
    """Compare every treatment with the control within the segments of a field of the context.

    P-values are adjusted by Benjamini and Hochberg (1995) over treatments and segments, so that of all effects called
    better or worse at most a share of alpha is none on average. Intervals have the level at which they agree with that:
    1 - alpha * called / tested (Benjamini and Yekutieli 2005).

    Raises:
        UnknownMetric: The shares of the arms followed outcomes or changed, or lists were mixed.
        UnknownField: No unit's first decision has the field in its context.
    """
    if experiment.shares_changed or experiment.is_interleaved:
        raise UnknownMetric(
            f"experiment {experiment.name!r} has no fixed-horizon test within segments, as its shares changed or its "
            "lists were mixed; see its summary()"
        )
    units = contexts.first_values(log, field)
    values = contexts.most_common(source, units, MOST_SEGMENTS)
    if not values:
        known = ", ".join(contexts.latest_fields(source, log)) or "none"
        raise UnknownField(
            f"no unit of experiment {experiment.name!r} began with {field!r} in its context; the latest have: {known}"
        )
    samples = read_samples(
        source, _per_cell(queries.per_unit(queries.observations(log, metric)), units, values), "cell"
    )
    labels = [*map(_label, values), *[""] * (MOST_SEGMENTS - len(values)), OTHER, MISSING]
    cells = list(_cells(experiment, metric, field, samples, labels))
    rows = tuple(_judged(cells, metric, experiment, field, alpha, split))
    spreads = tuple(_spreads(cells, experiment))
    judgement = (
        broken_split(split.p_value).reason
        if split.mismatch
        else ". ".join(_sentence(spread, rows, metric, experiment, field, alpha) for spread in spreads)
    )
    return Segments(rows, spreads, judgement)


def _per_cell(per_unit: ir.Table, units: ir.Table, values: Sequence[str]) -> ir.Table:
    joined = per_unit.join(units, "unit")
    cases = [(joined["value"] == value, place) for place, value in enumerate(values)]
    place = ibis.cases((joined["value"].isnull(), MOST_SEGMENTS + 1), *cases, else_=MOST_SEGMENTS)
    return joined.select("numerator", "denominator", "observations", cell=joined["arm"] * _PLACES + place)


def _label(value: str) -> str:
    return str(json.loads(value)) if value.startswith('"') else value


def _cells(
    experiment: Experiment, metric: AnyMetric, field: str, samples: Mapping[int, Sample], labels: Sequence[str]
) -> Iterator[_Cell]:
    places = {cell % _PLACES for cell in samples}
    for arm in experiment.treatments:
        for place in sorted(places):
            label = labels[place]
            control, treatment = (samples.get(each.number * _PLACES + place) for each in (experiment.control, arm))
            gap = missing_evidence(metric, _where(experiment.control, field, label), control)
            gap = gap or missing_evidence(metric, _where(arm, field, label), treatment)
            yield _Cell(arm, label, control, treatment, gap)


def _where(arm: Arm, field: str, label: str) -> str:
    return f"{arm.name} where {field} is {label}"


def _judged(
    cells: Sequence[_Cell], metric: AnyMetric, experiment: Experiment, field: str, alpha: float, split: SplitCheck
) -> Iterator[Segment]:
    p_values = [_effect(cell, 1 - alpha).p_value for cell in cells]
    adjusted = benjamini_hochberg(p_values)
    called, tested = (int(np.count_nonzero(these)) for these in (adjusted <= alpha, ~np.isnan(adjusted)))
    confidence = 1 - alpha * max(called, 1) / max(tested, 1)
    for cell, adjusted_p in zip(cells, adjusted, strict=True):
        effect = _effect(cell, confidence)
        if split.mismatch:
            judgement = broken_split(split.p_value)
        elif cell.gap:
            judgement = insufficient(cell.gap)
        else:
            judgement = judge(metric, _where(cell.arm, field, cell.label), effect, confidence)
        yield Segment(
            metric=metric.name,
            arm=cell.arm.name,
            segment=cell.label,
            control_units=cell.control.units if cell.control else 0,
            units=cell.treatment.units if cell.treatment else 0,
            control_mean=cell.control.mean if cell.control else math.nan,
            mean=cell.treatment.mean if cell.treatment else math.nan,
            **effect._asdict(),
            adjusted_p_value=float(adjusted_p),
            confidence=confidence,
            verdict=judgement.verdict,
            reason=judgement.reason,
        )


def _effect(cell: _Cell, confidence: float) -> Effect:
    if cell.gap or cell.control is None or cell.treatment is None:
        return _UNKNOWN
    return compare(cell.control, cell.treatment, confidence)


def _spreads(cells: Sequence[_Cell], experiment: Experiment) -> Iterator[Spread]:
    found = [_spread([cell for cell in cells if cell.arm == arm], arm) for arm in experiment.treatments]
    adjusted = holm([spread.p_value for spread in found])
    for spread, adjusted_p in zip(found, adjusted, strict=True):
        yield spread._replace(adjusted_p_value=float(adjusted_p))


def _spread(cells: Sequence[_Cell], arm: Arm) -> Spread:
    pairs = [(cell.control, cell.treatment) for cell in cells if not cell.gap and cell.control and cell.treatment]
    if len(pairs) < 2:
        return Spread(arm.name, len(pairs), math.nan, math.nan, math.nan, math.nan)
    found = heterogeneity(
        [treatment.mean - control.mean for control, treatment in pairs],
        [standard_error(*pair) for pair in pairs],
        [degrees_of_freedom(*pair) for pair in pairs],
    )
    return Spread(arm.name, len(pairs), found.q, found.p_value, math.nan, 100 * found.i_squared)


def _sentence(
    spread: Spread, rows: Sequence[Segment], metric: AnyMetric, experiment: Experiment, field: str, alpha: float
) -> str:
    if spread.segments < 2:
        return (
            f"not enough evidence: {spread.arm} can be compared with {experiment.control.name} in {spread.segments} "
            f"segment(s) of {field}, and whether its effect differs takes 2"
        )
    called = [
        f"{verdict} in {', '.join(names)}"
        for verdict in ("better", "worse")
        if (names := [row.segment for row in rows if row.arm == spread.arm and row.verdict == verdict])
    ]
    finding = (
        f"{spread.arm} is {' and '.join(called)}" if called else f"no segment says by itself what {spread.arm} does"
    )
    test = f"(Cochran's Q = {spread.q:.3g} of {spread.segments} segments, p = {spread.adjusted_p_value:.2g})"
    if spread.adjusted_p_value <= alpha:
        return f"the effect of {spread.arm} on {metric.name} differs by {field} {test}: {finding}"
    return (
        f"the effect of {spread.arm} on {metric.name} may be the same whatever {field} is {test}, so read it over all "
        f"units: {finding}"
    )
