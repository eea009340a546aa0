import math
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from analysis.statistics.posteriors import Beta, Student
from analysis.statistics.thompson import Evidence
from router.simulation.estimates import Mean, Time, mean_of, quantile_of, share_of
from router.simulation.fixed_horizon import called, intervals, observable, planned
from router.simulation.rehearsing import Effort, Rehearsed, options, rehearse
from router.simulation.results import Found, credible_width
from router.simulation.settings import Rule
from tests.router.simulations import CLICK, REVENUE, even, plan, setting

SPLIT = even("control", "new")


def _rehearse(
    content: Any, days: float, runs: int, *, step: int | None = None, against: tuple[Rule, ...] = (), **more: Any
) -> Rehearsed:
    effort = Effort(runs, more.pop("seed", 1), more.pop("processes", 1))
    return rehearse(options(setting(content, days, step), against), effort, **{"alpha": 0.05, **more})


def _evidence(values: Any) -> Evidence:
    return Evidence(len(values), float(np.sum(values)), float(np.sum(np.square(values))), len(values))


@pytest.fixture(scope="module")
def split() -> Found:
    """Power is about 0.6: 100 000 decisions would be far more than enough, 3000 are not."""
    return _rehearse(plan(allocation=SPLIT), 6000 / 24_000, 1000, step=180).allocations[0]


def test_power_of_a_split_is_that_of_the_closed_form(split: Found) -> None:
    n, (p, q) = 3000, (0.1, 0.12)
    noncentral = abs(q - p) / math.sqrt((p * (1 - p) + q * (1 - q)) / n)
    limit = stats.norm.ppf(0.975)
    power = stats.norm.sf(limit - noncentral) + stats.norm.cdf(-limit - noncentral)
    assert split.plan is not None
    assert split.plan.power == pytest.approx(power, abs=1e-9)
    assert 0.5 < power < 0.9
    # Besides chance, the number of decisions varies, and Welch's test is not exactly normal.
    assert split.call.best.share == pytest.approx(power, abs=4 * split.call.best.error)
    assert split.call.other.share == pytest.approx(0, abs=4 * split.call.other.error)
    assert split.call.best.share + split.call.other.share + split.call.none.share == pytest.approx(1)


def test_planned_decisions_have_power_of_eighty_per_cent(split: Found) -> None:
    assert split.plan is not None
    assert (split.plan.best, split.plan.against) == ("new", "control")
    decisions = split.plan.decisions
    assert decisions is not None
    error = math.sqrt((0.09 + 0.1056) / (decisions / 2))
    assert stats.norm.sf(stats.norm.ppf(0.975), 0.02 / error) == pytest.approx(0.8, abs=1e-3)
    assert split.plan.days == pytest.approx(decisions / 24_000, rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "world", "share", "mean"),
    [
        (CLICK, {"missing": 0.5}, 0.5, 0.1),
        ({**CLICK, "default": 0, "window_s": 3600}, {"missing": 0.5}, 1.0, 0.05),
        ({**CLICK, "default": 0, "window_s": 600}, {"delay": {"kind": "exponential", "mean_s": 600}}, 1.0, 0.0632121),
        (CLICK, {"delay": {"kind": "exponential", "mean_s": 600}}, 1.0, 0.1),
    ],
    ids=["missing", "defaulted", "late", "delayed"],
)
def test_what_a_metric_makes_of_values_that_do_not_come(
    metric: dict[str, Any], world: dict[str, Any], share: float, mean: float
) -> None:
    found = setting(plan(metric=metric, **world), 1)
    seen = observable(found.phases[0].values[0], found)
    assert (seen.counted, seen.mean) == pytest.approx((share, mean))
    assert seen.sd == pytest.approx(math.sqrt(mean * (1 - mean)))


def test_power_with_delay_and_outcomes_that_never_come_is_still_that_of_the_formula() -> None:
    metric = {**CLICK, "default": 0, "window_s": 3600}
    content = plan(allocation=SPLIT, metric=metric, missing=0.2, delay={"kind": "exponential", "mean_s": 900})
    found = _rehearse(content, 0.5, 300, step=90).allocations[0]
    assert found.plan is not None
    assert 0.5 < found.plan.power < 0.95
    assert found.call.best.share == pytest.approx(found.plan.power, abs=4 * found.call.best.error)


def test_a_plan_without_a_difference_or_with_fixed_values() -> None:
    same = {"control": {"probability": 0.1}, "new": {"probability": 0.1}}
    none = planned(setting(plan(same, allocation=SPLIT), 1), 0.05)
    assert none is not None
    assert (none.decisions, none.days) == (None, None)
    assert none.power == pytest.approx(0.05)
    certain = {"control": {"probability": 0}, "new": {"probability": 1}}
    sure = planned(setting(plan(certain, allocation=SPLIT), 1), 0.05)
    assert sure is not None
    assert sure.power == 1
    assert planned(setting(plan(), 1), 0.05) is None


def test_a_lone_outcome_window_beyond_the_end_has_no_power() -> None:
    metric = {**CLICK, "default": 0, "window_s": 2 * 86_400}
    late = planned(setting(plan(allocation=SPLIT, metric=metric), 1), 0.05)
    assert late is not None
    assert late.power == 0


def test_intervals_are_those_of_welch() -> None:
    generator = np.random.default_rng(0)
    samples = [generator.normal(mean, sd, size) for mean, sd, size in ((0, 1, 20), (1, 3, 35), (0.2, 0.5, 8))]
    arms = {name: {"mean": 0, "sd": 1} for name in ("control", "new", "newer")}
    found = setting(plan(arms, metric=REVENUE, allocation=even(*arms)), 1)
    got = intervals(found, [_evidence(sample) for sample in samples], 0.1)
    for treatment, interval in zip(samples[1:], got, strict=True):
        expected = stats.ttest_ind(treatment, samples[0], equal_var=False).confidence_interval(0.95)
        assert (interval.low, interval.high) == pytest.approx(tuple(expected))
        assert interval.difference == pytest.approx(treatment.mean() - samples[0].mean())


@pytest.mark.parametrize(
    ("means", "direction", "arm"),
    [
        ((0, 5, 9), "increase", 2),
        ((0, 5, 9), "decrease", 0),
        ((0, -5, 9), "decrease", 1),
        ((0, 0.01, -0.01), "increase", None),
        ((0, -5, 0.01), "increase", None),
    ],
    ids=["best", "control", "lowest", "none", "not-all-worse"],
)
def test_the_best_of_what_is_better_than_the_control_is_called(
    means: tuple[float, ...], direction: str, arm: int | None
) -> None:
    arms = {name: {"mean": 0, "sd": 1} for name in ("control", "new", "newer")}
    found = setting(plan(arms, metric={**REVENUE, "direction": direction}, allocation=even(*arms)), 1)
    noise = np.array([-1.0, 1.0] * 50)
    assert called(found, intervals(found, [_evidence(mean + noise) for mean in means], 0.05)) == arm


def test_no_values_give_no_interval() -> None:
    found = setting(plan(allocation=SPLIT), 1)
    empty, sure = Evidence(0, 0, 0, 0), Evidence(5, 5, 5, 5)
    assert math.isnan(intervals(found, [empty, sure], 0.05)[0].low)
    assert called(found, intervals(found, [sure, sure], 0.05)) is None


def test_false_calls_of_a_split_where_all_arms_are_equal() -> None:
    [found] = _rehearse(plan(allocation=SPLIT), 0.25, 800, step=360, aa=True).all_equal
    assert found.call.best.share == pytest.approx(0.05, abs=4 * found.call.best.error)
    assert found.call.other.share == 0
    assert found.regret.mean == 0
    assert found.saved is None


def test_looking_again_and_again_is_no_test() -> None:
    [found] = _rehearse(plan(), 0.5, 60, aa=True, step=30).all_equal
    assert found.sure.by_the_end.share > 0.15


def test_regret_of_equal_shares_is_requests_times_the_mean_loss(split: Found) -> None:
    assert split.uniform_regret.mean == pytest.approx(6000 * 0.01, rel=5 / math.sqrt(6000 * 1000))
    assert split.uniform_regret.error is not None
    error = math.sqrt(6000 * 0.25) * 0.02 / math.sqrt(1000)
    assert split.regret.mean == pytest.approx(split.uniform_regret.mean, abs=5 * error)
    assert split.plot.regret[-1] == pytest.approx(split.regret.mean)
    assert (split.plot.regret[0], split.plot.days[0]) == (0, 0)
    assert split.reward.mean == pytest.approx(0.11, abs=1e-4)
    assert split.shares == {"control": Mean(0.5, 0.0), "new": Mean(0.5, 0.0)}
    assert split.best_leads is None


def test_regret_is_against_the_best_arm_of_each_moment() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.3}}
    changes = [{"after_days": 0.5, "swap": ["control", "new"]}]
    result = _rehearse(plan(arms, allocation=SPLIT, changes=changes), 1, 50, step=60)
    assert result.best == ["control"]
    assert result.allocations[0].regret.mean == pytest.approx(2400, rel=0.01)
    assert any(note.startswith("values change: ") for note in result.notes)


def test_a_bandit_saves_regret_where_one_arm_is_much_better() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.3}}
    bandit, other = _rehearse(plan(arms), 1, 4, against=("split",), step=10).allocations
    assert (bandit.allocation, other.allocation) == ("thompson", "even split")
    assert bandit.saved is not None
    # The floor of two arms, 5 % each, costs a tenth of what equal shares cost, and burn-in a little more.
    assert 0.8 < bandit.saved.mean < 0.9
    assert bandit.sure.right.share == 1
    assert bandit.sure.median.days is not None
    assert 0 < bandit.sure.median.days < 0.1
    assert bandit.confidence is None


def test_widths_of_intervals(split: Found) -> None:
    assert split.confidence is not None
    assert (width := split.confidence["new"]) is not None
    assert width.mean == pytest.approx(2 * 1.96 * math.sqrt((0.09 + 0.1056) / 3000), rel=0.01)
    assert split.credible["control"].mean == pytest.approx(2 * 1.96 * math.sqrt(0.09 / 3000), rel=0.01)


def test_credible_widths_are_those_of_the_posteriors() -> None:
    low, high = stats.beta(3, 8).interval(0.95)
    assert credible_width(Beta(3, 8)) == pytest.approx(high - low)
    low, high = stats.t(5, 2, 0.5).interval(0.95)
    assert credible_width(Student(2, 0.5, 5)) == pytest.approx(high - low)


def test_processes_change_nothing_and_seeds_do() -> None:
    def encoded(**more: Any) -> bytes:
        return msgspec.json.encode(_rehearse(plan(), 0.2, 4, step=30, aa=True, against=("top-two",), **more))

    assert encoded() == encoded(processes=2)
    assert encoded() != encoded(seed=2)


def test_progress_counts_every_run() -> None:
    seen: list[None] = []
    _rehearse(plan(), 0.05, 3, aa=True, against=("split",), progress=lambda: seen.append(None))
    assert len(seen) == 12


def test_notes_say_what_the_figures_leave_out() -> None:
    document = {"holdout": 0.1, "audience": [{"attribute": "country", "op": "eq", "value": "DE"}]}
    content = plan(
        {"control": {"mean": 1, "sd": 1}, "new": {"mean": 1, "sd": 1}},
        metric=REVENUE,
        allocation={"kind": "thompson", "metric": "revenue"},
        document=document,
    )
    notes = "\n".join(_rehearse(content, 0.05, 1).notes)
    for said in ("10.00% of the decisions are held out", "the audience is not looked at", "heavier tails"):
        assert said in notes


def test_estimates_by_hand() -> None:
    assert mean_of([]) is None
    assert mean_of([3.0]) == Mean(3.0, None)
    assert mean_of([1.0, 3.0]) == Mean(2.0, 1.0)
    found = share_of([True, True, False, False])
    assert (found.share, found.error) == pytest.approx((0.5, math.sqrt(0.25 / 8)))
    assert share_of([True]).error > 0
    assert quantile_of([4.0, 1.0, None, 2.0], 0.5) == Time(2.0, 1.0, 4.0)
    assert quantile_of([1.0, None, None], 0.5).days is None
