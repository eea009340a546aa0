"""What a bandit's arms were worth, read from the ledger with the propensities that were logged."""

from typing import NamedTuple

from analysis import queries
from analysis.experiment import AnyMetric, Experiment
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics import hindsight


class ArmInHindsight(NamedTuple):
    """`mean` is that of the arm's own decisions, `weighted_mean` estimates that of all, had they been the arm's."""

    arm: str
    share: float
    """In the newest epoch; of all decisions if every request had shares of its own."""
    decisions: int
    observations: int
    mean: float
    weighted_mean: float


class Hindsight(NamedTuple):
    """Arms, the number of epochs, the best arm by weighted means, and regrets in units of the metric, summed up."""

    arms: tuple[ArmInHindsight, ...]
    epochs: int
    best: str | None
    regret: float
    uniform_regret: float

    def cost(self, metric: AnyMetric) -> str:
        """What the traffic has cost, in a sentence."""
        if self.best is None:
            return "what the traffic has cost cannot be said: not every arm has a label yet"
        verb, lacks = ("cost", "more") if metric.direction == "decrease" else ("earned", "less")
        return (
            f"{self.best} has the best weighted mean: by these means, this traffic {verb} {self.regret:,.1f} {lacks} "
            f"{metric.name} than {self.best} alone would have, summed over all labels, and equal shares would have "
            f"{verb} {self.uniform_regret:,.1f} {lacks} than {self.best} alone"
        )


def look_back(source: Source, log: Log, experiment: Experiment, metric: AnyMetric) -> Hindsight:
    """Estimate what each arm was worth, and what the traffic has cost against the best arm."""
    decisions = {row["arm"]: row["decisions"] for row in source.rows(queries.traffic(log))}
    rows = {row["arm"]: row for row in source.rows(queries.weighted(queries.observations(log, metric)))}
    sums = [rows.get(arm.number, _NOTHING) for arm in experiment.arms]
    found = hindsight.look_back(
        [row["observations"] for row in sums],
        [row["weighted_numerator"] for row in sums],
        [row["weighted_denominator"] for row in sums],
        decrease=metric.direction == "decrease",
    )
    total = sum(decisions.values()) or 1
    if experiment.allocation == "contextual" or not experiment.epochs:
        shares = [decisions.get(arm.number, 0) / total for arm in experiment.arms]
    else:
        shares = list(experiment.epochs[-1].shares)
    arms = tuple(
        ArmInHindsight(
            arm.name,
            shares[position],
            decisions.get(arm.number, 0),
            row["observations"],
            row["numerator"] / row["denominator"] if row["denominator"] else float("nan"),
            float(mean),
        )
        for position, (arm, row, mean) in enumerate(zip(experiment.arms, sums, found.means, strict=True))
    )
    best = arms[found.best].arm if found.best >= 0 else None
    return Hindsight(arms, len(experiment.epochs), best, found.regret, found.uniform_regret)


_NOTHING = dict.fromkeys(("observations", "numerator", "denominator", "weighted_numerator", "weighted_denominator"), 0)
