"""Values that were observed once: from a file, or from an experiment in the ledger."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from router.documents import AnyMetric, NumericMetric
from router.errors import InvalidDocument
from router.simulation.plans import has_ones_only
from router.simulation.values import AnyValues, Normals, Ones, Resampled

FIELD = "world.logged"


class Observed(NamedTuple):
    """What was observed of an arm: how many values, their sum and sum of squares."""

    n: float
    total: float
    squares: float


def read_csv(path: Path, metric: AnyMetric, arms: Sequence[str]) -> Mapping[str, AnyValues]:
    """Return the values of each arm in a CSV file with the columns `arm` and `value`; other arms are left out.

    Raises:
        InvalidDocument: The file cannot be read, a value is none of the metric, or an arm has none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = _values(csv.DictReader(file), path, metric, arms)
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}; name a CSV file with the columns arm,value") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise _refused(f"{path} is not a CSV file: {error}; export it as CSV with the columns arm,value") from None
    for arm, values in found.items():
        if not values:
            raise _refused(f"{path} has no value of arm {arm!r}; it needs values of {', '.join(arms)}")
    return {arm: Resampled(np.array(values)) for arm, values in found.items()}


def from_statistics(found: Mapping[str, Observed], metric: AnyMetric, origin: str) -> Mapping[str, AnyValues]:
    """Return the values that an arm's statistics stand for: ones as often as they were, else normal ones.

    Raises:
        InvalidDocument: An arm has fewer than two values.
    """
    for arm, observed in found.items():
        if observed.n < 2:
            raise _refused(f"{origin} has {observed.n:.0f} value(s) of {metric.name!r} in arm {arm!r}; it needs two")
    return {arm: _as_values(observed, metric) for arm, observed in found.items()}


def _as_values(observed: Observed, metric: AnyMetric) -> AnyValues:
    mean = observed.total / observed.n
    if has_ones_only(metric):
        return Ones(min(max(mean, 0.0), 1.0))
    return Normals(mean, math.sqrt(max(observed.squares / observed.n - mean * mean, 0.0)))


def _values(
    rows: "csv.DictReader[str]", path: Path, metric: AnyMetric, arms: Sequence[str]
) -> Mapping[str, list[float]]:
    if missing := {"arm", "value"} - set(rows.fieldnames or ()):
        columns = ", ".join(rows.fieldnames or ()) or "none"
        raise _refused(f"{path} has no column {min(missing)!r}; it has {columns}: name its columns arm,value")
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for row in rows:
        if row["arm"] in found:
            found[row["arm"]].append(_number(row["value"], f"{path}, line {rows.line_num}", metric))
    return found


def _number(text: str | None, where: str, metric: AnyMetric) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise _refused(f"{where}: {text!r} is no number; leave rows without a value out") from None
    if not math.isfinite(value):
        raise _refused(f"{where}: {text!r} is not finite; leave such rows out")
    if has_ones_only(metric) and value not in {0.0, 1.0}:
        raise _refused(f"{where}: {text!r} is neither 0 nor 1, as {metric.name!r} has to be")
    return metric.limited(value) if isinstance(metric, NumericMetric) else value


def _refused(message: str) -> InvalidDocument:
    return InvalidDocument(f"{FIELD}: {message}", field=FIELD)
