"""Did arms get the traffic that their probabilities promise? Tested at every look, period by period."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import queries
from analysis.experiment import Experiment
from analysis.periods import Periods
from analysis.queries import Log
from analysis.source import Source
from analysis.statistics.sample_ratio import THRESHOLD, sample_ratio
from analysis.statistics.sequential_ratio import sequential_ratio


class SplitCheck(NamedTuple):
    """Evidence against the promised split; nan where nothing could be tested."""

    p_value: float
    """Valid however often it is looked at; below 0.001 the split is broken."""
    log_e_value: float
    """Natural logarithm of the evidence now: above 0 it speaks against the split, below 0 for it."""
    fixed_horizon_p_value: float
    """Of the chi-square test over epochs, which holds for one look."""

    @property
    def mismatch(self) -> bool:
        """Whether the split is broken; untestable is not broken."""
        return self.p_value < THRESHOLD


UNTESTED = SplitCheck(math.nan, math.nan, math.nan)


class Draws(NamedTuple):
    """Independent draws in order of time, by period and epoch [rows, arms], and the shares that were promised."""

    periods: NDArray[np.int64]
    epochs: NDArray[np.int64]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]


def read_draws(source: Source, log: Log, experiment: Experiment, periods: Periods) -> Draws:
    """Count the draws of each period, epoch and arm."""
    rows = source.rows(queries.draws(log, experiment.randomise, periods))
    known = {epoch.number: epoch.shares for epoch in experiment.epochs}
    keys = sorted({(row["period"], row["epoch"]) for row in rows if row["epoch"] in known})
    place = {key: index for index, key in enumerate(keys)}
    arm = {each.number: index for index, each in enumerate(experiment.arms)}
    counts = np.zeros((len(keys), len(arm)), dtype=np.int64)
    for row in rows:
        if (row["period"], row["epoch"]) in place and row["arm"] in arm:
            counts[place[row["period"], row["epoch"]], arm[row["arm"]]] += row["draws"]
    shares = np.array([known[epoch] for _, epoch in keys], dtype=np.float64).reshape(-1, len(arm))
    numbers = np.array(keys, dtype=np.int64).reshape(-1, 2)
    return Draws(numbers[:, 0], numbers[:, 1], counts, shares)


def per_epoch(draws: Draws, experiment: Experiment) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the draws of each epoch [epochs, arms] and its shares [epochs, arms]."""
    shares = np.array([epoch.shares for epoch in experiment.epochs], dtype=np.float64).reshape(-1, len(experiment.arms))
    place = {epoch.number: index for index, epoch in enumerate(experiment.epochs)}
    counts = np.zeros(shares.shape, dtype=np.int64)
    np.add.at(counts, [place[number] for number in draws.epochs.tolist()], draws.counts)
    return counts, shares


def check_split(draws: Draws, experiment: Experiment) -> SplitCheck:
    """Test all draws so far."""
    if not draws.counts.any():
        return UNTESTED
    found = sequential_ratio(draws.counts, draws.shares)
    fixed = sample_ratio(*per_epoch(draws, experiment))
    return SplitCheck(found.p_value, float(found.log_e_values[-1]), fixed.p_value)


def split_evidence(draws: Draws, periods: Periods) -> pd.DataFrame:
    """One row per period with draws: time (its end, UTC), draws so far, log_e_value and p_value."""
    found = sequential_ratio(draws.counts, draws.shares)
    last = np.flatnonzero(np.diff(draws.periods, append=-1))
    ends = [periods.end_of(number) for number in draws.periods[last].tolist()]
    return pd.DataFrame(
        {
            "time": pd.to_datetime(np.array(ends, dtype=np.int64), unit="ms", utc=True),
            "draws": np.cumsum(draws.counts.sum(axis=1))[last],
            "log_e_value": found.log_e_values[last],
            "p_value": found.p_values[last],
        }
    )
