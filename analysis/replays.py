"""What of an experiment is replayed: its decisions and their outcomes, and the mechanism that drew the arms.

These are the rows that reports sum up inside the engine; here they leave it, of large experiments a sample.
"""

import math
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis import queries
from analysis.errors import UnknownMetric
from analysis.experiment import AnyMetric, BinaryMetric, Experiment
from analysis.sequential import Setup
from analysis.source import Source
from analysis.statistics import replay
from analysis.statistics.replay import Bandit, Clock, Drawn, Known

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

MOST_DECISIONS = 50_000
"""About as many are replayed; of larger experiments those of a sample of the units."""

MOST_TABLES = 100
"""Of a bandit's epochs as many are replayed; those between keep the shares of the one before."""

_MINUTE_MS = 60_000


class Rows(NamedTuple):
    """Decisions in order of time [rows]."""

    units: Ints
    """Numbers from 0."""
    epochs: Ints
    """Numbers of epochs."""
    periods: Ints
    decided_ms: Floats
    values: Floats
    """Numerator and denominator of the metric [rows, 2]."""
    known: Known
    """What a bandit learns of its own metric."""
    part: int
    """One in so many units is there."""


class Replay(NamedTuple):
    """Several runs of an experiment."""

    arms: Ints
    """Places of arms [runs, rows]."""
    weights: Floats
    """1 / share [runs, rows]."""
    values: Floats
    """Numerators and denominators [runs, rows, 2]."""
    shares: Floats
    """Of each table [runs, tables, arms]."""

    def of(self, rows: NDArray[np.bool_]) -> "Replay":
        """Return what some rows got."""
        return Replay(self.arms[:, rows], self.weights[:, rows], self.values[:, rows], self.shares)


class Mechanism:
    """Draws the arms of an experiment anew, as often as asked.

    Raises UnknownMetric if lists were mixed, or every request had shares of its own.
    """

    def __init__(self, source: Source, setup: Setup, metric: AnyMetric) -> None:
        self._experiment = setup.experiment
        _refuse(self._experiment)
        followed, self._bandit = metric, None
        if self._experiment.allocation == "thompson":
            document = _read_thompson(source, self._experiment)
            followed = self._experiment.metric(document.metric)
            self._bandit = _bandit(document, followed)
        self.rows = _read_rows(source, setup, metric, followed)
        most = None if self._bandit is None else MOST_TABLES
        firsts, self.tables = tables_of(self._experiment, self.rows.epochs, most)
        self._shares = np.array([self._experiment.epochs[first].shares for first in firsts], dtype=np.float64)
        self._published = np.array([self._experiment.epochs[first].published_ms for first in firsts], dtype=np.float64)

    def replay(self, runs: int, generator: np.random.Generator) -> Replay:
        """Return so many runs."""
        rows, by_unit = self.rows, self._experiment.randomise == "unit"
        sources = replay.permutations(rows.units, runs, generator)
        at = replay.places(rows.units if by_unit else None, len(rows.units), runs, generator)
        drawn = self._draw(sources, at)
        return Replay(drawn.arms, drawn.weights(self.tables), rows.values[sources], drawn.shares)

    def _draw(self, sources: Ints, at: Floats) -> Drawn:
        if self._bandit is None:
            return replay.replay_split(self.tables, self._shares, at)
        clock = Clock(self.rows.decided_ms, self.tables, self._published, self._shares > 0)
        return replay.replay_bandit(self._bandit, clock, self.rows.known, sources, at)


def _refuse(experiment: Experiment) -> None:
    if experiment.is_interleaved:
        raise UnknownMetric(f"experiment {experiment.name!r} interleaves rankings; its replays would need the rankers")
    if experiment.allocation == "contextual":
        raise UnknownMetric(
            f"every request to experiment {experiment.name!r} had shares of its own, which follow its context; they "
            "cannot be drawn anew from its decisions: rehearse it with `turnout simulate`"
        )


class _Thompson(msgspec.Struct, frozen=True):
    """What an experiment's document says of its bandit."""

    metric: str
    floor: float = 0.05
    control_share: float | None = None
    half_life_s: float | None = None
    window_s: float | None = None
    min_matured: int = 100
    top_two: bool = False


class _Document(msgspec.Struct, frozen=True):
    allocation: _Thompson


def _read_thompson(source: Source, experiment: Experiment) -> _Thompson:
    table = source.tables["experiments"]
    (row,) = source.rows(table.filter(table["id"] == experiment.id).select("document"))
    return msgspec.json.decode(row["document"], type=_Document).allocation


def _bandit(document: _Thompson, metric: AnyMetric) -> Bandit:
    half_life_s, window_s = (math.inf if each is None else each for each in (document.half_life_s, document.window_s))
    kind = "binary" if isinstance(metric, BinaryMetric) else "numeric"
    return Bandit(document, kind, metric.direction, 1000 * half_life_s, 1000 * window_s)


def tables_of(experiment: Experiment, epochs: Ints, most: int | None) -> tuple[list[int], Ints]:
    """Return the places of the epochs that are replayed [tables], and the table of each row, from epochs' numbers.

    At most so many, if the same arms were live all the time.
    """
    place_of = {epoch.number: place for place, epoch in enumerate(experiment.epochs)}
    used = [place_of[number] for number in np.unique(epochs).tolist()]
    step = 1 if most is None else math.ceil(len(used) / most)
    firsts: list[int] = []
    begun = 0
    table_of: dict[int, int] = {}
    for count, place in enumerate(used):
        if not firsts or count - begun >= step or _live(experiment, place) != _live(experiment, firsts[-1]):
            firsts.append(place)
            begun = count
        table_of[experiment.epochs[place].number] = len(firsts) - 1
    return firsts, np.array([table_of[number] for number in epochs.tolist()], dtype=np.intp)


def _live(experiment: Experiment, place: int) -> list[bool]:
    return [share > 0 for share in experiment.epochs[place].shares]


def _read_rows(source: Source, setup: Setup, metric: AnyMetric, followed: AnyMetric) -> Rows:
    decided = queries.counted_decisions(setup.log, metric)
    total = int(source.rows(decided.aggregate(decisions=decided.count()))[0]["decisions"])
    part = max(math.ceil(total / MOST_DECISIONS), 1)
    if part > 1:
        decided = decided.semi_join(_every(part, decided.select("unit").distinct()), "unit")
    period = setup.periods.number_of(decided["decided_ms"])
    wanted = decided.select("id", "unit", "epoch", "decided_ms", period=period)
    for name, each in (("value", metric), ("reward", followed)):
        wanted = _with_sums(wanted, setup, each, name)
    rows = source.rows(wanted.order_by("decided_ms", "id").drop("id"))

    def column(name: str) -> Floats:
        return np.array([row[name] for row in rows], dtype=np.float64)

    at, count, reward = column("decided_ms"), column("reward_d"), column("reward_n")
    # Of a decision with several values only their sum is known here.
    squares = np.divide(reward * reward, count, out=np.zeros_like(count), where=count > 0)
    return Rows(
        units=np.unique(np.array([row["unit"] for row in rows], dtype=np.str_), return_inverse=True)[1],
        epochs=column("epoch").astype(np.intp),
        periods=column("period").astype(np.intp),
        decided_ms=at,
        values=np.stack([column("value_n"), column("value_d")], axis=-1),
        known=Known(np.stack([count, reward, squares], axis=-1), _delays(followed, at, column("reward_ms"), count)),
        part=part,
    )


def _every(part: int, units: ir.Table) -> ir.Table:
    """One in so many units, in the order of their names."""
    numbered = units.mutate(number=ibis.row_number().over(order_by=units["unit"]))
    return numbered.filter(numbered["number"] % part == 0).select("unit")


def _with_sums(decided: ir.Table, setup: Setup, metric: AnyMetric, name: str) -> ir.Table:
    """Add what was observed of each decision, name_n and name_d, and when the last of it arrived, name_ms."""
    observed, said = queries.observations(setup.log, metric), setup.log.outcomes
    said = said.filter(said["metric"].isin(queries.metric_names(metric)))
    sums = observed.group_by("decision_id").aggregate(n=observed["numerator"].sum(), d=observed["denominator"].sum())
    arrived = said.group_by("decision_id").aggregate(ms=said["received_ms"].max())
    found = decided
    for more in (sums, arrived):
        joined = found.left_join(more, [("id", "decision_id")])
        added = {
            f"{name}_{each}": joined[each].fill_null(0).cast("float64") for each in more.drop("decision_id").columns
        }
        found = joined.select(*found.columns, **added)
    return found


def _delays(metric: AnyMetric, decided_ms: Floats, arrived_ms: Floats, observations: Floats) -> Floats:
    """Return how long after its decision the router counts what was observed of it [rows]; infinite if never."""
    if getattr(metric, "default", None) is None:
        return np.where(observations > 0, np.maximum(arrived_ms - decided_ms, 0.0), np.inf)
    # The router counts whole minutes, once the windows of all of their decisions have closed.
    minute = np.floor(decided_ms / _MINUTE_MS) + 1
    return np.asarray(minute * _MINUTE_MS + 1000 * metric.window_s - decided_ms)
