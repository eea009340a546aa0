"""The result of one experiment: `analysis.load("name").summary()`."""

import math
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import queries
from analysis.errors import ExperimentNotFound, InvalidLevel, SourceError, UnknownArm, UnknownMetric
from analysis.experiment import AnyMetric, Experiment, ScoreMetric, read_experiment
from analysis.fixed_horizon import Sample, read_samples
from analysis.hindsight import BIASED, Hindsight, look_back
from analysis.interleaved import Pair, compare_rankings
from analysis.results import Comparison, Result, Traffic, compare_arms, compare_credit
from analysis.shadowed import Shadow, compare_shadows
from analysis.source import Source, default_sources, open_source
from analysis.statistics.sample_ratio import THRESHOLD, UNTESTED, SampleRatio, sample_ratio
from analysis.statistics.scores import PROBABILITY_SCORES
from analysis.verdict import Verdict, decide, leading_arm

if TYPE_CHECKING:
    from analysis.plots import Plots

_PERIODS_MS = (60_000, 300_000, 900_000, 3_600_000, 10_800_000, 43_200_000, 86_400_000, 604_800_000)
_MOST_PERIODS = 24
_Z = 1.959963984540054


def load(
    name: str,
    source: str | Path | None = None,
    *,
    alpha: float = 0.05,
    now_ms: int | None = None,
) -> "Report":
    """Load the result of the experiment `name` as it was at `now_ms` (default: the clock).

    `source` is the address of a ledger (`sqlite:///PATH` or `postgresql://..`) or the path of a lake; by default the
    lake of $TURNOUT_LAKE if the experiment was exported to it, else the ledger of $TURNOUT_DATABASE. `alpha` is the
    chance of a wrong "better" or "worse" in a metric; it is split over the comparisons.

    Raises:
        SourceError: If the source is missing, does not answer, is corrupted, or of another schema.
        ExperimentNotFound: With the experiments that the source has.
        InvalidExperiment: If the experiment's document cannot be analysed.
        InvalidLevel: If alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise InvalidLevel(f"alpha is {alpha:g}; it must be between 0 and 1, such as 0.05")
    opened, experiment = _find(name, source)
    moment = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return Report(opened, experiment, alpha=alpha, now_ms=moment)


def _find(name: str, source: str | Path | None) -> tuple[Source, Experiment]:
    failures: list[str] = []
    try:
        for opened in default_sources() if source is None else (open_source(source),):
            try:
                return opened, read_experiment(opened, name)
            except ExperimentNotFound as error:
                failures.append(str(error))
    except SourceError as error:
        if not failures:
            raise
        failures.append(str(error))
    raise ExperimentNotFound(
        f"{'; '.join(failures)}. If it is elsewhere, name that ledger (sqlite:///PATH) as the source"
    )


class Report:
    """The result of one experiment at one moment.

    Intervals and p-values are fixed-horizon: valid when read once, at the end that was planned. A report that is read
    again and again until it shows a difference finds one too often.
    """

    def __init__(self, source: Source, experiment: Experiment, *, alpha: float, now_ms: int) -> None:
        self.source = source.name
        self.experiment = experiment
        self.alpha = alpha
        self.now_ms = now_ms
        self._source = source
        self._log = queries.log_of(source, experiment, now_ms)
        self._pairs: dict[str, tuple[Pair, ...]] = {}

    def summary(self) -> pd.DataFrame:
        """One row per metric and arm, control first; the columns are those of `analysis.results.Result`.

        Differences and lifts (percent) are against the control, clustered by (arm, unit). p_value is per comparison:
        set it against 1 - confidence, which is alpha divided by the number of treatment arms.
        """
        return pd.DataFrame(self.results, columns=pd.Index(Result._fields))

    def verdict(self, arm: str | None = None) -> Verdict:
        """What to do with a treatment arm, by default the one that leads in the primary metric."""
        names = [treatment.name for treatment in self.experiment.treatments]
        chosen = leading_arm(self.experiment, self.results) if arm is None else arm
        if chosen not in names:
            known = ", ".join(names)
            raise UnknownArm(f"experiment {self.experiment.name!r} has no treatment arm {chosen!r}; it has: {known}")
        return decide(self.experiment, self.results, chosen, self.srm())

    def srm(self) -> SampleRatio:
        """Test the traffic per arm against every epoch's own probabilities; p below 0.001 is a mismatch."""
        if self.experiment.allocation in {"contextual", "interleave"}:
            return UNTESTED
        return sample_ratio(self._draws, self._shares)

    def interleaving(self, metric: str | None = None) -> pd.DataFrame:
        """One row per pair of interleaved arms, from outcomes of a metric (default: the primary); columns of `Pair`.

        Fixed-horizon, by unit; the interval of each pair has the level 1 - alpha divided by the number of pairs.
        UnknownMetric if the experiment does not interleave.
        """
        return pd.DataFrame(self.pairs(metric), columns=pd.Index(Pair._fields))

    def pairs(self, metric: str | None = None) -> tuple[Pair, ...]:
        """The rows of `interleaving`."""
        if not self.experiment.is_interleaved:
            raise UnknownMetric(f"experiment {self.experiment.name!r} does not interleave rankings")
        chosen = self.experiment.primary if metric is None else self.experiment.metric(metric)
        if chosen.name not in self._pairs:
            found = compare_rankings(self._source, self._log, self.experiment, chosen, self.confidence)
            self._pairs[chosen.name] = tuple(found)
        return self._pairs[chosen.name]

    @cached_property
    def confidence(self) -> float:
        """Level of each interval: alpha is split over the comparisons of a metric (Bonferroni)."""
        arms = len(self.experiment.arms)
        return 1 - self.alpha / (arms * (arms - 1) / 2 if self.experiment.is_interleaved else arms - 1)

    def hindsight(self, metric: str | None = None) -> Hindsight:
        """What each arm was worth, weighted by 1 / propensity, and the regret of the traffic and of equal shares.

        In units of the metric (default: the primary). UnknownMetric if lists were mixed: no arm had a share.
        """
        self._refuse_mixed_lists()
        chosen = self.experiment.primary if metric is None else self.experiment.metric(metric)
        return look_back(self._source, self._log, self.experiment, chosen)

    def shares(self) -> pd.DataFrame:
        """Each arm's share of the traffic per epoch: epoch, published (UTC), arm, share.

        The share is the arm's probability. Every request to a contextual bandit has probabilities of its own; there
        it is the arm's part of the epoch's decisions, and epochs without any are left out. UnknownMetric if lists
        were mixed.
        """
        self._refuse_mixed_lists()
        shares = self._shares
        if self.experiment.allocation == "contextual":
            with np.errstate(invalid="ignore"):
                shares = self._draws / self._draws.sum(axis=1, keepdims=True)
        rows = [
            (epoch.number, epoch.published_ms, arm.name, float(shares[i, j]))
            for i, epoch in enumerate(self.experiment.epochs)
            for j, arm in enumerate(self.experiment.arms)
            if not np.isnan(shares[i, j])
        ]
        frame = pd.DataFrame(rows, columns=pd.Index(["epoch", "published", "arm", "share"]))
        return frame.assign(published=pd.to_datetime(frame["published"], unit="ms", utc=True))

    def shadow(self, metric: str | None = None) -> pd.DataFrame:
        """One row per shadow: what it saw, and its mean score beside that of what was served, on the same labels.

        Columns of `Shadow`; scores are nan where no metric is a score. Default: `shadow_score`. UnknownMetric if the
        metric is not a score.
        """
        chosen = self.shadow_score if metric is None else self.experiment.metric(metric)
        if not isinstance(chosen, ScoreMetric | None):
            raise UnknownMetric(f"shadows are compared by a score; {chosen.name!r} is none")
        return pd.DataFrame(compare_shadows(self._source, self._log, chosen), columns=pd.Index(Shadow._fields))

    @property
    def shadow_score(self) -> ScoreMetric | None:
        """The metric that shadows are compared by: the primary, or the first that is a score."""
        candidates = (self.experiment.primary, *self.experiment.metrics)
        return next((metric for metric in candidates if isinstance(metric, ScoreMetric)), None)

    @property
    def decisions(self) -> int:
        """How many decisions all arms got together."""
        return sum(arm.decisions for arm in self._traffic.values())

    @property
    def last_decision(self) -> pd.Timestamp:
        """When the last decision of any arm was made; 1970 if there is none."""
        return pd.Timestamp(max((arm.last_ms for arm in self._traffic.values()), default=0), unit="ms", tz="UTC")

    def assignments(self) -> pd.DataFrame:
        """What `srm` tests: draws and expected draws per epoch and arm.

        A draw is a unit's first decision, or every decision where requests are randomised.
        """
        expected = self._draws.sum(axis=1, keepdims=True) * self._shares
        rows = [
            (epoch.number, arm.name, int(self._draws[i, j]), float(expected[i, j]))
            for i, epoch in enumerate(self.experiment.epochs)
            for j, arm in enumerate(self.experiment.arms)
        ]
        return pd.DataFrame(rows, columns=pd.Index(["epoch", "arm", "draws", "expected_draws"]))

    def timeline(self, metric: str | None = None) -> pd.DataFrame:
        """Mean of a metric (default: the primary) per arm and period of the decisions, with 95 % intervals.

        Columns: period (its start, UTC), arm, units, observations, mean, low, high; the interval is nan for one unit,
        and of bandits. UnknownMetric if lists were mixed: no arm has a mean.
        """
        self._refuse_mixed_lists()
        chosen = self.experiment.primary if metric is None else self.experiment.metric(metric)
        query = queries.per_period(queries.observations(self._log, chosen), self.period_ms)
        frame = pd.DataFrame(
            self._source.rows(query),
            columns=pd.Index(
                ["arm", "start_ms", "units", "observations", "numerator", "denominator", "nn", "nd", "dd"]
            ),
        )
        if self.experiment.is_adaptive:
            # An arm that did badly by chance gets little traffic: the error of its mean is not what it seems.
            frame["nn"] = math.nan
        mean = frame["numerator"] / frame["denominator"]
        squares = frame["nn"] - 2 * mean * frame["nd"] + mean**2 * frame["dd"]
        correction = frame["units"] / (frame["units"] - 1).where(frame["units"] > 1)
        error = np.sqrt((squares * correction).clip(lower=0)) / frame["denominator"].abs()
        return pd.DataFrame(
            {
                "period": pd.to_datetime(frame["start_ms"], unit="ms", utc=True),
                "arm": frame["arm"].map(self._arm_names),
                "units": frame["units"],
                "observations": frame["observations"],
                "mean": mean,
                "low": mean - _Z * error,
                "high": mean + _Z * error,
            }
        )

    def reliability(self, metric: str | None = None, *, bins: int = 10) -> pd.DataFrame:
        """Predicted probability against observed frequency, per arm and bin, for a score of probabilities.

        Columns: arm, labels, predicted, observed, low, high (95 % interval of Wilson 1927). UnknownMetric if the metric
        is not a score of a probability, or no metric is.
        """
        rows = self._source.rows(queries.reliability(self._log, self._probability_score(metric), bins))
        frame = pd.DataFrame(rows, columns=pd.Index(["arm", "bin", "labels", "predicted", "observed"]))
        n, share = frame["labels"], frame["observed"]
        centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        placed = frame.assign(arm=frame["arm"].map(self._arm_names), low=centre - half, high=centre + half)
        return placed.drop(columns="bin")

    @property
    def plot(self) -> "Plots":
        """Altair charts of this report."""
        from analysis.plots import Plots

        return Plots(self)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The rows of `summary`."""
        comparison = Comparison(self.experiment, self._traffic, self.srm(), self.confidence)
        return tuple(row for metric in self.experiment.metrics for row in self._compare(comparison, metric))

    def _compare(self, comparison: Comparison, metric: AnyMetric) -> Iterator[Result]:
        if self.experiment.is_interleaved:
            return compare_credit(comparison, metric, self.pairs(metric.name))
        return compare_arms(comparison, metric, self._samples(metric))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before trusting the numbers."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        yield from self._allocation_notes()
        if self.experiment.state != "concluded":
            warning = "; intervals and p-values are fixed-horizon: valid when read once, at the planned end"
            yield f"the experiment's state is {self.experiment.state}{'' if self.experiment.is_adaptive else warning}"
        held_out = self._source.rows(queries.held_out(self._log))[0]["units"]
        if held_out:
            yield f"{held_out} unit(s) were held out: the champion served them, and they are part of no comparison"
        shared = self._source.rows(queries.shared_units(self._log))[0]["units"]
        if shared:
            yield (
                f"{shared} unit(s) got more than one arm; each (arm, unit) is a cluster of its own, and the dependence "
                "between the arms of one unit is not counted"
            )
        for arm in self.experiment.arms:
            traffic = self._traffic.get(arm.number)
            if traffic and traffic.fallbacks:
                yield (
                    f"the champion answered {traffic.fallbacks} of {traffic.decisions} decisions of {arm.name}; they "
                    "count for the assigned arm (intention to treat)"
                )
        for metric in self.experiment.metrics if not self.experiment.is_interleaved else ():
            waiting = self._source.rows(queries.waiting(self._log, metric))[0]["decisions"]
            if waiting and getattr(metric, "default", None) is not None:
                yield f"{waiting} decision(s) wait for their window of {metric.name} ({metric.window_s} s) to close"

    def _allocation_notes(self) -> Iterator[str]:
        if self.experiment.is_interleaved:
            units = self.results[0].units
            yield (
                f"{self.decisions:,} lists of {units:,} units mixed the rankings of all arms, so arms have no means; a "
                "list is won by the arm whose items earned more, and one that is tied counts half for each"
            )
            return
        if self.experiment.allocation == "contextual":
            yield "the split was not tested: every request had shares of its own"
        else:
            yield _split_note(self.srm())
        if self.experiment.is_adaptive:
            yield self.hindsight().cost(self.experiment.primary)
            yield BIASED

    def _refuse_mixed_lists(self) -> None:
        if self.experiment.is_interleaved:
            raise UnknownMetric(f"experiment {self.experiment.name!r} interleaves rankings; see its interleaving()")

    def _samples(self, metric: AnyMetric) -> dict[int, Sample]:
        return read_samples(self._source, queries.per_unit(queries.observations(self._log, metric)))

    def _probability_score(self, name: str | None) -> ScoreMetric:
        candidates = self.experiment.metrics if name is None else (self.experiment.metric(name),)
        for metric in candidates:
            if isinstance(metric, ScoreMetric) and metric.score in PROBABILITY_SCORES:
                return metric
        asked = "none of its metrics" if name is None else f"metric {name!r}"
        raise UnknownMetric(
            f"reliability needs a score of a probability ({', '.join(sorted(PROBABILITY_SCORES))}); in experiment "
            f"{self.experiment.name!r} {asked} is not one"
        )

    @cached_property
    def _traffic(self) -> dict[int, Traffic]:
        """By arm; lists that mix all arms are INTERLEAVED's."""
        rows = self._source.rows(queries.traffic(self._log))
        return {row.pop("arm"): Traffic(**row) for row in rows}

    @cached_property
    def _draws(self) -> NDArray[np.int64]:
        rows = self._source.rows(queries.draws(self._log, self.experiment.randomise))
        counts = {(row["epoch"], row["arm"]): row["draws"] for row in rows}
        matrix = [
            [counts.get((epoch.number, arm.number), 0) for arm in self.experiment.arms]
            for epoch in self.experiment.epochs
        ]
        return np.array(matrix, dtype=np.int64).reshape(-1, len(self.experiment.arms))

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        shares = [epoch.shares for epoch in self.experiment.epochs]
        return np.array(shares, dtype=np.float64).reshape(-1, len(self.experiment.arms))

    @cached_property
    def period_ms(self) -> int:
        """Width of the periods of `timeline`, chosen to make about 24 of them."""
        arms = self._traffic.values()
        length = max((arm.last_ms for arm in arms), default=0) - min((arm.first_ms for arm in arms), default=0)
        return next((width for width in _PERIODS_MS if length <= _MOST_PERIODS * width), _PERIODS_MS[-1])

    @cached_property
    def _arm_names(self) -> dict[int, str]:
        return {arm.number: arm.name for arm in self.experiment.arms}


def _split_note(test: SampleRatio) -> str:
    if math.isnan(test.p_value):
        return "the split was not tested: there is too little traffic"
    state = "broken" if test.mismatch else "as promised"
    return f"the split is {state}: sample ratio p = {test.p_value:.2g}, and below {THRESHOLD} it is called broken"
