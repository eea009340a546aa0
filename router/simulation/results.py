"""What a rehearsal found: one record for each allocation, ready to be printed, drawn or stored as JSON."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.statistics.posteriors import AnyPosterior, Beta, Student
from analysis.statistics.thompson import Evidence, posteriors
from router.documents import Split
from router.simulation.estimates import Mean, Share, Time, mean_of, quantile_of, share_of
from router.simulation.fixed_horizon import Interval, Planned, called, intervals, planned
from router.simulation.playing import Run
from router.simulation.settings import Setting
from router.simulation.traffic import MINUTES_PER_DAY

Floats = NDArray[np.float64]

POINTS = 120
"""How many points a line over time has, at most."""

_CREDIBLE = 0.95


class Sureness(msgspec.Struct, frozen=True):
    """When the posterior first gave an arm more than 0.95 to be the best one.

    That is no valid test, because it looks again and again.

    `right` and `wrong` are the shares of runs in which that was one of the best arms, and another.
    """

    by_the_end: Share
    right: Share
    wrong: Share
    median: Time


class Call(msgspec.Struct, frozen=True):
    """In which share of runs the best arm, another, or none was called at the end; `rule` says how."""

    rule: str
    best: Share
    other: Share
    none: Share


class Plot(msgspec.Struct, frozen=True):
    """Lines over time: mean and 10 % and 90 % quantiles over runs, at the same days in all."""

    days: list[float]
    regret: list[float]
    regret_low: list[float]
    regret_high: list[float]
    uniform_regret: list[float]
    shares: dict[str, list[float]]
    shares_low: dict[str, list[float]]
    shares_high: dict[str, list[float]]
    sure: list[float]
    """In which share of runs the posterior had been sure by then."""


class Found(msgspec.Struct, frozen=True):
    """What was found of one allocation.

    Rewards are sums and means of true values, whether or not their outcomes came; regret is what the best arm would
    have brought on top, the best one at each moment.
    """

    allocation: str
    decisions: Mean
    regret: Mean
    uniform_regret: Mean
    """Of equal shares with the same requests."""
    saved: Mean | None
    """Which share of the uniform regret was avoided; None where there is none."""
    reward: Mean
    """Per decision."""
    shares: dict[str, Mean]
    """Of each arm at the end, of what is not held out."""
    best_leads: Share | None
    """The best arm has the largest share at the end; None where the shares are fixed."""
    sure: Sureness
    call: Call
    plan: Planned | None
    """Of a split's test."""
    credible: dict[str, Mean]
    """Width of the central 95 % of the posterior of each arm's mean at the end."""
    confidence: dict[str, Mean | None] | None
    """Width of the interval of each treatment's difference from the control at the end, of a split."""
    plot: Plot


def summarise(label: str, setting: Setting, runs: Sequence[Run], alpha: float) -> Found:
    """Return what the runs of one setting say; there is at least one."""
    regret, uniform, reward = _rewards(setting, runs)
    decided = np.array([run.drawn.sum() for run in runs], dtype=np.float64)
    found = [intervals(setting, run.evidence, alpha) for run in runs] if _is_split(setting) else None
    return Found(
        allocation=label,
        decisions=_mean(decided),
        regret=_mean(regret[:, -1]),
        uniform_regret=_mean(uniform[:, -1]),
        saved=_saved(regret[:, -1], uniform[:, -1]),
        reward=_mean(reward / np.maximum(decided, 1)),
        shares={name: _mean([run.shares[-1, arm] for run in runs]) for arm, name in enumerate(setting.names)},
        best_leads=None if _is_split(setting) else share_of([_leads(setting, run) for run in runs]),
        sure=sureness(setting, runs),
        call=calls(setting, runs, alpha),
        plan=planned(setting, alpha),
        credible={
            name: _mean([_credible(setting, run.evidence, arm) for run in runs])
            for arm, name in enumerate(setting.names)
        },
        confidence=None if found is None else _confidence(setting, found),
        plot=_plot(setting, runs, regret, uniform),
    )


def sureness(setting: Setting, runs: Sequence[Run]) -> Sureness:
    """Return when the posterior was sure, and of which arm."""
    right = [run.sure is not None and _is_best(setting, run.sure.arm, run.sure.minute) for run in runs]
    days = [None if run.sure is None else run.sure.minute / MINUTES_PER_DAY for run in runs]
    return Sureness(
        by_the_end=share_of([run.sure is not None for run in runs]),
        right=share_of(right),
        wrong=share_of([run.sure is not None and not good for run, good in zip(runs, right, strict=True)]),
        median=quantile_of(days, 0.5),
    )


def calls(setting: Setting, runs: Sequence[Run], alpha: float) -> Call:
    """Return which arm was called at the end, by a split's test, or else by the posterior."""
    if _is_split(setting):
        rule = f"Welch's test against the control at the end, alpha {alpha:g} over all treatments"
        made = [called(setting, intervals(setting, run.evidence, alpha)) for run in runs]
    else:
        rule = "posterior probability above 0.95 at the end (not a test with a known error)"
        made = [run.leader for run in runs]
    end = setting.ends[-1]
    right = [arm is not None and _is_best(setting, arm, end) for arm in made]
    return Call(
        rule=rule,
        best=share_of(right),
        other=share_of([arm is not None and not good for arm, good in zip(made, right, strict=True)]),
        none=share_of([arm is None for arm in made]),
    )


def _is_split(setting: Setting) -> bool:
    return isinstance(setting.document.allocation, Split)


def _is_best(setting: Setting, arm: int, minute: int) -> bool:
    """Return whether an arm is one of the best in what was played just before a minute."""
    return setting.names[arm] in setting.best(setting.phase_at(minute - 1))


def _leads(setting: Setting, run: Run) -> bool:
    last = run.shares[-1]
    ahead = [name for name, share in zip(setting.names, last, strict=True) if share == last.max()]
    return set(ahead) <= set(setting.best(setting.phase_at(setting.ends[-1] - 1)))


def _rewards(setting: Setting, runs: Sequence[Run]) -> tuple[Floats, Floats, Floats]:
    """Return cumulative regret and uniform regret [runs, steps], and the reward [runs]."""
    means = setting.means()
    signed = setting.sign * means
    loss = signed.max(axis=1, keepdims=True) - signed
    drawn = np.array([run.drawn for run in runs], dtype=np.float64)
    regret = (drawn * loss).sum(axis=2).cumsum(axis=1)
    uniform = (drawn.sum(axis=2) * loss.mean(axis=1)).cumsum(axis=1)
    return regret, uniform, (drawn * means).sum(axis=(1, 2))


def _saved(regret: Floats, uniform: Floats) -> Mean | None:
    return _mean(1 - regret / uniform) if (uniform > 0).all() else None


def _mean(values: Floats | Sequence[float]) -> Mean:
    if (found := mean_of(values)) is None:
        raise AssertionError("a mean over no runs")
    return found


def _confidence(setting: Setting, found: Sequence[Sequence[Interval]]) -> dict[str, Mean | None]:
    widths = np.array([[each.high - each.low for each in of_run] for of_run in found])
    return {
        name: mean_of(column[np.isfinite(column)]) for name, column in zip(setting.names[1:], widths.T, strict=True)
    }


def _credible(setting: Setting, evidence: Sequence[Evidence], arm: int) -> float:
    return credible_width(posteriors(setting.kind, evidence)[arm])


def credible_width(posterior: AnyPosterior) -> float:
    """Return the width of the central 95 % of a posterior."""
    from scipy.special import betaincinv, stdtrit

    ends = ((1 - _CREDIBLE) / 2, (1 + _CREDIBLE) / 2)
    if isinstance(posterior, Beta):
        low, high = (float(betaincinv(*posterior, end)) for end in ends)
        return high - low
    if isinstance(posterior, Student):
        return 2 * posterior.scale * float(stdtrit(posterior.freedom, ends[1]))
    raise AssertionError(f"no bandit believes {posterior}")


def _plot(setting: Setting, runs: Sequence[Run], regret: Floats, uniform: Floats) -> Plot:
    ends = np.array(setting.ends)
    at = np.unique(np.searchsorted(ends, np.linspace(0, ends[-1], POINTS + 1)))
    zero = np.zeros((len(runs), 1))
    lost, evenly = (np.concatenate([zero, each], axis=1)[:, at] for each in (regret, uniform))
    shares = np.array([run.shares for run in runs])[:, at]
    first = np.array([np.inf if run.sure is None else run.sure.minute for run in runs])
    low, high = np.quantile(shares, [0.1, 0.9], axis=0)
    return Plot(
        days=(ends[at] / MINUTES_PER_DAY).tolist(),
        regret=lost.mean(axis=0).tolist(),
        regret_low=np.quantile(lost, 0.1, axis=0).tolist(),
        regret_high=np.quantile(lost, 0.9, axis=0).tolist(),
        uniform_regret=evenly.mean(axis=0).tolist(),
        shares=_by_arm(setting, shares.mean(axis=0)),
        shares_low=_by_arm(setting, low),
        shares_high=_by_arm(setting, high),
        sure=(first[:, np.newaxis] <= ends[at]).mean(axis=0).tolist(),
    )


def _by_arm(setting: Setting, table: Floats) -> dict[str, list[float]]:
    return dict(zip(setting.names, table.T.tolist(), strict=True))
