from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from router.allocation.evidence import fold
from router.documents import Bandit
from router.simulation.delays import answered, arrived
from router.simulation.plans import Exponential, Fixed
from router.simulation.playing import Run, play
from router.simulation.record import Record
from router.simulation.settings import Setting
from router.simulation.values import AnyValues, Normals, Ones, Resampled
from tests.router.simulations import CLICK, REVENUE, even, plan, setting

HOUR = {"kind": "fixed", "seconds": 3600}
DEFAULTED = {**CLICK, "default": 0, "window_s": 7200}


def _play(content: Any, days: float, seed: int = 0, step: int | None = None) -> Run:
    return play(setting(content, days, step), np.random.SeedSequence(seed))


def _same(one: Run, other: Run) -> bool:
    return bool((one.drawn == other.drawn).all() and (one.shares == other.shares).all()) and one[2:] == other[2:]


def test_equal_seeds_give_equal_runs() -> None:
    assert _same(_play(plan(), 0.5), _play(plan(), 0.5))
    assert not _same(_play(plan(), 0.5), _play(plan(), 0.5, seed=1))


def test_decisions_are_those_of_the_expected_traffic() -> None:
    run = _play(plan(document={"holdout": 0.2}), 10, step=60)
    expected = 0.8 * 240_000
    assert abs(run.drawn.sum() - expected) < 5 * np.sqrt(expected)
    assert run.shares.sum(axis=1) == pytest.approx(np.ones(len(run.shares)))


def test_a_better_arm_gets_the_traffic_but_for_the_floor() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.3}}
    assert _play(plan(arms), 1).shares[-1] == pytest.approx([0.05, 0.95], abs=1e-4)
    lower = {**CLICK, "direction": "decrease"}
    assert _play(plan(arms, metric=lower), 1).shares[-1] == pytest.approx([0.95, 0.05], abs=1e-4)


def test_nothing_is_learned_before_the_first_outcome_comes() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.9}}
    run = _play(plan(arms, delay=HOUR), 0.5, step=20)
    assert (run.shares[:3] == 0.5).all()
    assert run.shares[6][1] > 0.9
    never = _play(plan(arms, delay={"kind": "fixed", "seconds": 86_400}), 0.5, step=20)
    assert (never.shares == 0.5).all()
    assert never.sure is None
    assert all(arm.matured == 0 for arm in never.evidence)


def _evidence(found: Setting, allocation: Bandit) -> list[Any]:
    """Return the evidence after each step of a record in which arms get the same."""
    record, generator, all_known = Record(found), np.random.default_rng(0), []
    for step in range(len(found.ends) - 1):
        record.decide(step, np.array([500, 500]), found.phase_at(found.ends[step]).values, generator)
        record.arrive(step)
        all_known.append(record.evidence(step, allocation))
    return all_known


@pytest.mark.parametrize("metric", [CLICK, DEFAULTED], ids=["none", "default"])
@pytest.mark.parametrize("delay", [HOUR, {"kind": "exponential", "mean_s": 300}], ids=["fixed", "exponential"])
def test_what_is_pending_never_counts_as_a_failure(metric: dict[str, Any], delay: dict[str, Any]) -> None:
    certain = {"control": {"probability": 1}, "new": {"probability": 1}}
    found = setting(plan(certain, metric=metric, delay=delay), 0.5, step=10)
    allocation = found.document.allocation
    assert isinstance(allocation, Bandit)
    known = _evidence(found, allocation)
    # With a window of two hours, exp(-24) of the exponential outcomes would be too late.
    assert all(arm.total == arm.n for each in known for arm in each)
    silent = {"none": {"fixed": 6, "exponential": 0}, "default": {"fixed": 12, "exponential": 12}}
    first = silent["none" if metric is CLICK else "default"][str(delay["kind"])]
    assert [each[0].n > 0 for each in known[: first + 2]] == [step >= first for step in range(first + 2)]


def test_what_never_comes_is_a_default_or_nothing() -> None:
    certain = {"control": {"probability": 1}, "new": {"probability": 1}}
    for metric, share in ((DEFAULTED, 0.75), (CLICK, 1.0)):
        found = setting(plan(certain, metric=metric, missing=0.25), 2, step=10)
        assert isinstance(found.document.allocation, Bandit)
        control = _evidence(found, found.document.allocation)[-1][0]
        assert control.total / control.n == pytest.approx(share, abs=5 * np.sqrt(0.25 * 0.75 / control.n))


@pytest.mark.parametrize("metric", [CLICK, DEFAULTED], ids=["none", "default"])
@pytest.mark.parametrize("half_life", [None, 7200], ids=["keeps", "forgets"])
def test_evidence_is_the_fold_of_rows_as_a_ledger_has_them(metric: dict[str, Any], half_life: int | None) -> None:
    forgetful = {"kind": "thompson", "metric": "click", "half_life_s": half_life}
    found = setting(plan(metric=metric, allocation=forgetful, delay={"kind": "exponential", "mean_s": 900}), 0.5)
    allocation = found.document.allocation
    assert isinstance(allocation, Bandit)
    record, generator, steps = Record(found), np.random.default_rng(0), len(found.ends) - 1
    for step in range(steps):
        record.decide(step, generator.poisson([30, 50]), found.phases[0].values, generator)
        record.arrive(step)
    outcomes, items = [], []
    for step, (start, end) in enumerate(zip(found.ends, found.ends[1:], strict=False)):
        for arm in (0, 1):
            count, total, squares = record._rows[step, arm, 3:]
            outcomes.append((arm, start, end - start, count, total, squares))
            items.append((arm, start, end - start, record._items[step, arm, 3]))
    expected = fold(
        outcomes, items, arms=(0, 1), metric=found.metric, allocation=allocation, now_ms=60_000 * found.ends[-1]
    )
    got = record.evidence(steps - 1, allocation)
    assert np.array(got) == pytest.approx(np.array(expected), rel=1e-12)
    assert got[0].n > 0


@pytest.mark.parametrize("longest", [float("inf"), 500.0], ids=["ever", "window"])
@pytest.mark.parametrize("delay", [Fixed(seconds=300), Exponential(mean_s=200)], ids=["fixed", "exponential"])
def test_what_has_come_is_the_mean_over_the_times_of_decisions(delay: Fixed | Exponential, longest: float) -> None:
    decided = np.linspace(60, 660, 200_001)
    times = np.array([660.0, 800.0, 1000.0, 1500.0])
    ages = np.minimum(times[:, np.newaxis] - decided, longest)
    share = ages >= delay.seconds if isinstance(delay, Fixed) else 1 - np.exp(-ages / delay.mean_s)
    assert arrived(delay, 60, 660, times, longest) == pytest.approx(share.mean(axis=1), abs=1e-5)
    assert answered(delay, 500.0) == pytest.approx(1.0 if isinstance(delay, Fixed) else 1 - np.exp(-2.5))


_OBSERVED: NDArray[np.float64] = np.array([0.0, 1.0, 1.0, 6.0])


@pytest.mark.parametrize("values", [Ones(0.3), Normals(5.0, 2.0), Resampled(_OBSERVED)], ids=["ones", "normal", "file"])
def test_sums_are_those_of_values_drawn_one_by_one(values: AnyValues) -> None:
    counts = np.full(20_000, 7)
    total, squares = values.draw(np.random.default_rng(0), counts)
    error = values.sd * np.sqrt(7 / len(counts))
    assert total.mean() == pytest.approx(7 * values.mean, abs=5 * error)
    assert total.std() == pytest.approx(values.sd * np.sqrt(7), rel=5 / np.sqrt(2 * len(counts)))
    second = values.sd**2 + values.mean**2
    assert squares.mean() == pytest.approx(7 * second, abs=5 * float(squares.std()) / np.sqrt(len(counts)))
    # The variance within a group, which an analysis makes of both sums, is unbiased.
    within = (squares - total**2 / 7) / 6
    assert within.mean() == pytest.approx(values.sd**2, abs=5 * float(within.std()) / np.sqrt(len(counts)))
    assert [part.tolist() for part in values.draw(np.random.default_rng(0), np.array([0, 0]))] == [[0, 0], [0, 0]]


def test_a_normal_metric_is_played_with_students_posteriors() -> None:
    arms = {"control": {"mean": 10, "sd": 3}, "new": {"mean": 11, "sd": 3}}
    run = _play(plan(arms, metric=REVENUE, allocation={"kind": "thompson", "metric": "revenue"}), 1)
    assert run.shares[-1] == pytest.approx([0.05, 0.95], abs=1e-4)
    assert run.evidence[1].total / run.evidence[1].n == pytest.approx(11, abs=0.2)


def test_a_split_keeps_its_shares_and_looks_at_the_posterior_all_the_same() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.2}}
    run = _play(plan(arms, allocation=even("control", "new")), 1)
    assert (run.shares == 0.5).all()
    assert run.sure is not None
    assert run.sure.arm == run.leader == 1


def test_a_bandit_that_forgets_follows_a_change() -> None:
    arms = {"control": {"probability": 0.1}, "new": {"probability": 0.3}}
    swapped = [{"after_days": 1, "swap": ["control", "new"]}]
    forgetful = {"kind": "thompson", "metric": "click", "half_life_s": 7200}
    run = _play(plan(arms, allocation=forgetful, changes=swapped), 2, step=20)
    assert run.shares[-1][0] > 0.9
