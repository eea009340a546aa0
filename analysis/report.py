"""The result of one experiment: `analysis.load("name").summary()`."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import means, notes, queries, sequential, split_check
from analysis.adjusted import DAYS, Adjusted, compare_adjusted
from analysis.certificate import Certificate, certify
from analysis.drifting import Found as DriftFound
from analysis.drifting import compare_periods
from analysis.errors import ExperimentNotFound, InvalidLevel, SourceError, UnknownArm, UnknownMetric
from analysis.experiment import AnyMetric, Arm, Experiment, ScoreMetric, read_experiment
from analysis.fixed_horizon import Sample, read_samples
from analysis.hindsight import Hindsight, look_back
from analysis.interleaved import Pair, compare_rankings
from analysis.periods import Periods
from analysis.planning import EFFECTS_PERCENT, Planning, plan
from analysis.posterior import Posteriors, posteriors
from analysis.results import Comparison, Result, Traffic, compare_arms, compare_credit, compare_once
from analysis.segments import Segments, compare_segments
from analysis.sequential import Looks, Setup
from analysis.shadowed import Shadow, compare_shadows
from analysis.source import Source, default_sources, open_source
from analysis.split_check import UNTESTED, Draws, SplitCheck
from analysis.statistics.off_policy import DEFAULT_LIMITS, Limits
from analysis.statistics.scores import PROBABILITY_SCORES
from analysis.verdict import Verdict, decide, leading_arm
from analysis.what_if import ByValue, Shares, WhatIf, what_if

if TYPE_CHECKING:
    from analysis.plots import Plots


def load(
    name: str,
    source: str | Path | None = None,
    *,
    alpha: float = 0.05,
    now_ms: int | None = None,
) -> "Report":
    """Load the result of the experiment `name` as it was at `now_ms` (default: the clock).

    `source` is the address of a ledger (`sqlite:///PATH` or `postgresql://..`), the path of a lake, or `spark:PATH` to
    read that with Spark; by default the lake of $TURNOUT_LAKE if the experiment was exported to it, else the ledger of
    $TURNOUT_DATABASE. `alpha` is the chance of a wrong "better" or "worse" in a metric; it is split over the
    comparisons.

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

    Intervals and p-values hold however often the result is read, on split and on bandit traffic: the chance that they
    are wrong at any look is at most alpha. `fixed_horizon` has those that hold for one look.
    """

    def __init__(self, source: Source, experiment: Experiment, *, alpha: float, now_ms: int) -> None:
        self.source = source.name
        self.experiment = experiment
        self.alpha = alpha
        self.now_ms = now_ms
        self._source = source
        self._log = queries.log_of(source, experiment, now_ms)
        self._pairs: dict[str, tuple[Pair, ...]] = {}
        self._shadows: dict[str | None, tuple[Shadow, ...]] = {}
        self._looks: dict[str, dict[int, Looks]] = {}
        self._read_samples: dict[str, dict[int, Sample]] = {}

    def summary(self) -> pd.DataFrame:
        """One row per metric and arm, control first; the columns are those of `analysis.results.Result`.

        Differences and lifts (percent) are against the control, by unit, with confidence sequences. p_value is per
        comparison and valid at every look: set it against 1 - confidence, which is alpha divided by the number of
        treatment arms.
        """
        return pd.DataFrame(self.results, columns=pd.Index(Result._fields))

    def fixed_horizon(self) -> pd.DataFrame:
        """`summary` by Welch's test, clustered by (arm, unit): narrower, and valid only for one look that was planned.

        UnknownMetric where that test does not hold: arms' shares followed outcomes or changed, or lists were mixed.
        """
        if self.experiment.shares_changed or self.experiment.is_interleaved:
            raise UnknownMetric(
                f"experiment {self.experiment.name!r} has no fixed-horizon test, as its shares changed or its lists "
                "were mixed; see its summary()"
            )
        rows = [
            row
            for metric in self.experiment.metrics
            for row in compare_once(self._comparison, metric, self._samples(metric))
        ]
        return pd.DataFrame(rows, columns=pd.Index(Result._fields))

    def contrast(self, metric: str | None = None, arm: str | None = None) -> pd.DataFrame:
        """How a treatment (default: the leading one) compared with the control at every look so far.

        Columns: time (UTC), decisions (of all arms), control_mean, arm_mean, difference, difference_low,
        difference_high, lift_percent, lift_low_percent, lift_high_percent, log_e_value, p_value. Metric: the primary by
        default. Looks without an interval are left out. UnknownMetric if lists were mixed.
        """
        self._refuse_mixed_lists()
        chosen = self.experiment.metric(metric)
        return sequential.frame(self.looks(chosen).get(self.treatment(arm).number, sequential.nothing()))

    def verdict(self, arm: str | None = None) -> Verdict:
        """What to do with a treatment arm, by default the one that leads in the primary metric."""
        chosen = self.treatment(arm)
        return decide(self.experiment, self.results, chosen.name, self.srm())

    def treatment(self, name: str | None = None) -> Arm:
        """The treatment arm of that name, by default the one that leads in the primary metric; else UnknownArm."""
        chosen = leading_arm(self.experiment, self.results) if name is None else name
        for arm in self.experiment.treatments:
            if arm.name == chosen:
                return arm
        known = ", ".join(arm.name for arm in self.experiment.treatments)
        raise UnknownArm(f"experiment {self.experiment.name!r} has no treatment arm {chosen!r}; it has: {known}")

    def looks(self, metric: AnyMetric) -> dict[int, Looks]:
        """What `contrast` shows, by the arm's number; without arms that had no traffic when the control had some."""
        if metric.name not in self._looks:
            self._looks[metric.name] = self._sequences.compare(metric)
        return self._looks[metric.name]

    def srm(self) -> SplitCheck:
        """Test the traffic per arm against every epoch's own probabilities; p below 0.001 is a mismatch."""
        return UNTESTED if self._is_untested else split_check.check_split(self._draws, self.experiment)

    def split_evidence(self) -> pd.DataFrame:
        """Evidence against the promised split over time: time (UTC), draws, log_e_value, p_value; see `srm`."""
        if self._is_untested:
            raise UnknownMetric(f"experiment {self.experiment.name!r} has no shares that its split could be tested on")
        return split_check.split_evidence(self._draws, self._periods)

    @property
    def _is_untested(self) -> bool:
        return self.experiment.allocation in {"contextual", "interleave"}

    def interleaving(self, metric: str | None = None) -> pd.DataFrame:
        """One row per pair of interleaved arms, from outcomes of a metric (default: the primary); columns of `Pair`.

        By unit, and valid at every look; the interval of each pair has the level 1 - alpha divided by the number of
        pairs. UnknownMetric if the experiment does not interleave.
        """
        return pd.DataFrame(self.pairs(metric), columns=pd.Index(Pair._fields))

    def pairs(self, metric: str | None = None) -> tuple[Pair, ...]:
        """The rows of `interleaving`."""
        if not self.experiment.is_interleaved:
            raise UnknownMetric(f"experiment {self.experiment.name!r} does not interleave rankings")
        chosen = self.experiment.metric(metric)
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
        chosen = self.experiment.metric(metric)
        return look_back(self._source, self._log, self.experiment, chosen)

    def allocation(self) -> pd.DataFrame:
        """Each arm's share of the traffic per epoch: epoch, published (UTC), arm, share.

        The share is the arm's probability. Every request to a contextual bandit has probabilities of its own; there
        it is the arm's part of the epoch's decisions, and epochs without any are left out. UnknownMetric if lists
        were mixed.
        """
        self._refuse_mixed_lists()
        draws, shares = split_check.per_epoch(self._draws, self.experiment)
        if self.experiment.allocation == "contextual":
            with np.errstate(invalid="ignore"):
                shares = draws / draws.sum(axis=1, keepdims=True)
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
        name = chosen.name if chosen else None
        if name not in self._shadows:
            planned = self.experiment.planned_decisions
            found = compare_shadows(self._source, self._log, chosen, planned=planned, alpha=self.alpha)
            self._shadows[name] = tuple(found)
        return pd.DataFrame(self._shadows[name], columns=pd.Index(Shadow._fields))

    @property
    def shadow_score(self) -> ScoreMetric | None:
        """The metric that shadows are compared by: the primary, or the first that is a score."""
        candidates = (self.experiment.primary, *self.experiment.metrics)
        return next((metric for metric in candidates if isinstance(metric, ScoreMetric)), None)

    @property
    def decisions(self) -> int:
        """How many decisions all arms got together."""
        return sum(arm.decisions for arm in self.traffic.values())

    @property
    def first_decision(self) -> pd.Timestamp:
        """When the first decision of any arm was made; 1970 if there is none."""
        return pd.Timestamp(self._first_ms, unit="ms", tz="UTC")

    @property
    def last_decision(self) -> pd.Timestamp:
        """When the last decision of any arm was made; 1970 if there is none."""
        return pd.Timestamp(self._last_ms, unit="ms", tz="UTC")

    def assignments(self) -> pd.DataFrame:
        """What `srm` tests: draws and expected draws per epoch and arm.

        A draw is a unit's first decision, or every decision where requests are randomised.
        """
        draws, shares = split_check.per_epoch(self._draws, self.experiment)
        expected = draws.sum(axis=1, keepdims=True) * shares
        rows = [
            (epoch.number, arm.name, int(draws[i, j]), float(expected[i, j]))
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
        chosen = self.experiment.metric(metric)
        return means.timeline(self._source, self._log, self.experiment, chosen, self.period_ms)

    def reliability(self, metric: str | None = None, *, bins: int = 10) -> pd.DataFrame:
        """Predicted probability against observed frequency, per arm and bin, for a score of probabilities.

        Columns: arm, labels, predicted, observed, low, high (95 % interval of Wilson 1927). UnknownMetric if the metric
        is not a score of a probability, or no metric is.
        """
        score = self._probability_score(metric)
        return means.reliability(self._source, self._log, self.experiment, score, bins)

    def off_policy(
        self,
        policy: Shares | ByValue,
        metric: str | None = None,
        *,
        field: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> WhatIf:
        """What the metric (default: the primary) would have been, had another policy chosen the arms.

        `policy` gives shares by arm, such as `{"boosting": 1.0}`, or with a `field` of the context such shares by its
        value; see `analysis.what_if.what_if`, also for what it raises. Without overlap there are no estimates.
        """
        chosen = self.experiment.metric(metric)
        return what_if(
            self._source, self._log, self.experiment, chosen, policy, field=field, limits=limits, alpha=self.alpha
        )

    def posteriors(self, metric: str | None = None) -> Posteriors:
        """What is believed of each arm's mean of a metric (default: the primary), and what shipping the best may cost.

        UnknownMetric if lists were mixed: no arm has a mean.
        """
        chosen = self.experiment.metric(metric)
        return posteriors(self.experiment, chosen, self._samples(chosen))

    def power(
        self,
        metric: str | None = None,
        *,
        effects_percent: Sequence[float] = EFFECTS_PERCENT,
        wanted: float = 0.8,
    ) -> Planning:
        """What effects on a metric (default: the primary) can be found now, and what it takes to find others.

        From the variance and the traffic so far. UnknownMetric if lists were mixed or shares follow outcomes.
        """
        chosen = self.experiment.metric(metric)
        return plan(
            self.experiment,
            chosen,
            {} if self.experiment.is_interleaved else self._samples(chosen),
            self.traffic,
            effects_percent=effects_percent,
            alpha=1 - self.confidence,
            wanted=wanted,
        )

    def drift(self, at_ms: int | None = None, metric: str | None = None) -> DriftFound:
        """Whether predictions, and labels of a score (default: `shadow_score`), changed at a moment.

        By default that is the middle between the first and the last decision. UnknownMetric without a score.
        """
        chosen = self.shadow_score if metric is None else self.experiment.metric(metric)
        if not isinstance(chosen, ScoreMetric):
            raise UnknownMetric(f"drift of labels needs a score; experiment {self.experiment.name!r} was not given one")
        moment = (self._first_ms + self._last_ms) // 2 if at_ms is None else at_ms
        return compare_periods(self._source, self._log, self.experiment, chosen, moment)

    def segments(self, field: str, metric: str | None = None) -> Segments:
        """The effects on a metric (default: the primary) by what a field of the context was at a unit's first decision.

        Fixed-horizon, with the false-discovery rate alpha over segments and treatments; see `compare_segments`.
        """
        chosen = self.experiment.metric(metric)
        return compare_segments(
            self._source, self._log, self.experiment, chosen, field, alpha=self.alpha, split=self.srm()
        )

    def adjusted(self, metric: str | None = None, *, days: float = DAYS) -> pd.DataFrame:
        """The effects on a metric (default: the primary), adjusted for what units did in so many days before (CUPED).

        Fixed-horizon; one row per treatment, the columns are those of `Adjusted`. See `compare_adjusted`.
        """
        chosen = self.experiment.metric(metric)
        how = {"confidence": self.confidence, "days": days}
        rows = compare_adjusted(self._source, self._log, self.experiment, chosen, **how, split=self.srm())
        return pd.DataFrame(rows, columns=pd.Index(Adjusted._fields))

    def certificate(self, metric: str | None = None, *, runs: int = 200, seed: int = 1) -> Certificate:
        """How often this very report would be wrong about a metric (default: the primary) if all arms were alike.

        The experiment is replayed so many times; see `analysis.certificate`. UnknownMetric if lists were mixed, or
        every request had shares of its own.
        """
        chosen = self.experiment.metric(metric)
        return certify(self._source, self._setup, chosen, runs=runs, seed=seed)

    @property
    def plot(self) -> "Plots":
        """Altair charts of this report."""
        from analysis.plots import Plots

        return Plots(self)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The rows of `summary`."""
        return tuple(row for metric in self.experiment.metrics for row in self._compare(metric))

    def _compare(self, metric: AnyMetric) -> Iterator[Result]:
        if self.experiment.is_interleaved:
            return compare_credit(self._comparison, metric, self.pairs(metric.name))
        return compare_arms(self._comparison, metric, self._samples(metric), self.looks(metric))

    @cached_property
    def _comparison(self) -> Comparison:
        return Comparison(self.experiment, self.traffic, self.srm(), self.confidence)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before trusting the numbers."""
        return tuple(notes.notes(self))

    @cached_property
    def held_out(self) -> int:
        """How many units were held out."""
        return int(self._source.rows(queries.held_out(self._log))[0]["units"])

    @cached_property
    def shared_units(self) -> int:
        """How many units got more than one arm."""
        return int(self._source.rows(queries.shared_units(self._log))[0]["units"])

    def waiting(self, metric: AnyMetric) -> int:
        """How many decisions have not matured yet for a metric."""
        return int(self._source.rows(queries.waiting(self._log, metric))[0]["decisions"])

    def _refuse_mixed_lists(self) -> None:
        if self.experiment.is_interleaved:
            raise UnknownMetric(f"experiment {self.experiment.name!r} interleaves rankings; see its interleaving()")

    def _samples(self, metric: AnyMetric) -> dict[int, Sample]:
        if metric.name not in self._read_samples:
            units = queries.per_unit(queries.observations(self._log, metric))
            self._read_samples[metric.name] = read_samples(self._source, units)
        return self._read_samples[metric.name]

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
    def traffic(self) -> dict[int, Traffic]:
        """What each arm was given, by its number; lists that mix all arms are INTERLEAVED's."""
        rows = self._source.rows(queries.traffic(self._log))
        return {row.pop("arm"): Traffic(**row) for row in rows}

    @cached_property
    def _sequences(self) -> sequential.Metrics:
        return sequential.Metrics(self._source, self._setup)

    @cached_property
    def _setup(self) -> Setup:
        is_single = sum(arm.units for arm in self.traffic.values()) == self.decisions and not self.shared_units
        return Setup(self.experiment, self._log, self._periods, not is_single, self.confidence)

    @cached_property
    def _periods(self) -> Periods:
        return Periods(self._first_ms, self._last_ms)

    @cached_property
    def _draws(self) -> Draws:
        return split_check.read_draws(self._source, self._log, self.experiment, self._periods)

    @property
    def _first_ms(self) -> int:
        return min((arm.first_ms for arm in self.traffic.values()), default=0)

    @property
    def _last_ms(self) -> int:
        return max((arm.last_ms for arm in self.traffic.values()), default=0)

    @property
    def period_ms(self) -> int:
        """Width of the periods of `timeline`, chosen to make about 24 of them."""
        return means.width_ms(self._last_ms - self._first_ms)
