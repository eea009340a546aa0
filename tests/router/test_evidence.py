import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.thompson import Evidence
from router.allocation.evidence import fold
from router.documents import AnyMetric, BinaryMetric, NumericMetric, ScoreMetric, Thompson

MINUTE = 29_000_000
NOW_MS = (MINUTE + 100) * 60_000

LABEL = ScoreMetric(name="brier", direction="decrease", score="brier", label="late", window_s=3600)
CLICK = BinaryMetric(name="click", direction="increase", default=0, window_s=600)
REVENUE = NumericMetric(name="revenue", direction="increase", default=2.0, window_s=600)

FOREVER = Thompson(metric="any")

Row = tuple[int, int, int, int, float, float]
Decided = tuple[int, int, int, float]


def evidence(
    outcomes: list[Row], items: list[Decided], metric: AnyMetric, allocation: Thompson = FOREVER, now_ms: int = NOW_MS
) -> tuple[Evidence, ...]:
    return fold(outcomes, items, arms=[0, 1], metric=metric, allocation=allocation, now_ms=now_ms)


def test_without_a_default_every_outcome_counts_at_once() -> None:
    outcomes = [
        (0, MINUTE + 99, 1, 3, 0.5, 0.25),
        (1, MINUTE, 60, 2, 1.0, 0.5),
        (0, MINUTE - 9999, 1440, 1, 0.25, 0.125),
    ]
    undecided = [(0, MINUTE, 1, 50.0)]
    assert evidence(outcomes, undecided, LABEL) == (Evidence(4, 0.75, 0.375, 4), Evidence(2, 1.0, 0.5, 2))
    assert evidence([], [], LABEL) == (Evidence(0, 0, 0, 0),) * 2


def test_with_a_default_decisions_without_an_outcome_count_with_it() -> None:
    outcomes = [(0, MINUTE, 1, 3, 3.0, 3.0)]
    items = [(0, MINUTE, 1, 10.0), (1, MINUTE, 1, 4.0)]
    assert evidence(outcomes, items, CLICK) == (Evidence(10, 3, 3, 10), Evidence(4, 0, 0, 4))
    assert evidence(outcomes, items, REVENUE) == (Evidence(10, 17, 31, 10), Evidence(4, 8, 16, 4))


@pytest.mark.parametrize("span", [1, 60, 1440])
def test_pending_decisions_are_neither_failures_nor_successes(span: int) -> None:
    outcomes, items = [(0, MINUTE, span, 3, 3.0, 3.0)], [(0, MINUTE, span, 10.0)]
    closes_ms = (MINUTE + span) * 60_000 + 600_000
    pending, _ = evidence(outcomes, items, CLICK, now_ms=closes_ms - 1)
    assert pending == Evidence(0, 0, 0, 0)
    closed, _ = evidence(outcomes, items, CLICK, now_ms=closes_ms)
    assert closed == Evidence(10, 3, 3, 10)


HOUR = MINUTE - MINUTE % 60


def test_a_late_success_counts_when_its_hour_does() -> None:
    rolled, late = (1, HOUR, 60, 20.0), (1, HOUR + 7, 1, 1, 1.0, 1.0)
    closes_ms = (HOUR + 60) * 60_000 + 600_000
    assert evidence([late], [rolled], CLICK, now_ms=closes_ms - 1)[1] == Evidence(0, 0, 0, 0)
    assert evidence([late], [rolled], CLICK, now_ms=closes_ms)[1] == Evidence(20, 1, 1, 20)


@pytest.mark.parametrize("span", [60, 1440])
def test_what_is_retracted_from_an_hour_or_a_day_counts_as_much_as_that(span: int) -> None:
    first = MINUTE - MINUTE % span
    rolled, retracted = (1, first, span, 20, 40.0, 80.0), (1, first + span - 1, 1, -5, -10.0, -20.0)
    of_hour = (0, first, min(span, 60), 1, 2.0, 4.0)
    for age_s in range(0, 2 * 86_400, 600):
        now_ms = (first + span) * 60_000 + 1000 * age_s
        recent = Thompson(metric="any", window_s=86_400, half_life_s=50_000)
        _, found = evidence([rolled, retracted, of_hour], [], LABEL, recent, now_ms)
        assert found.n >= 0
        assert found.total == pytest.approx(2 * found.n)
        assert found.squares == pytest.approx(4 * found.n)


def test_outcomes_of_decisions_that_are_not_there_yet_add_no_negative_failures() -> None:
    assert evidence([(0, MINUTE, 1, 3, 2.0, 2.0)], [(0, MINUTE, 1, 1.0)], CLICK)[0] == Evidence(3, 2, 2, 3)


def test_rows_of_several_spans_and_shards_add_up() -> None:
    outcomes = [(1, MINUTE, 60, 5, 4.0, 4.0), (1, MINUTE, 60, 1, 1.0, 1.0), (1, MINUTE + 3, 1, 2, 1.0, 1.0)]
    items = [(1, MINUTE, 60, 15.0), (1, MINUTE, 60, 5.0)]
    assert evidence(outcomes, items, CLICK)[1] == Evidence(20, 6, 6, 20)


def test_older_outcomes_count_less_by_the_clock() -> None:
    allocation = Thompson(metric="any", half_life_s=3600)
    # The middles of these rows are one, two and one and a half hours old, of a minute or an hour.
    hour = 60
    outcomes = [
        (0, MINUTE + 100 - hour, 1, 8, 4.0, 2.0),
        (0, MINUTE + 100 - 2 * hour, 1, 8, 4.0, 2.0),
        (1, MINUTE + 100 - 2 * hour, 60, 8, 8.0, 8.0),
    ]
    first, _ = evidence(outcomes[:2], [], LABEL, allocation, NOW_MS + 30_000)
    _, second = evidence(outcomes[2:], [], LABEL, allocation, NOW_MS + 30_000)
    assert first == pytest.approx((8 * 0.75, 4 * 0.75, 2 * 0.75, 16))
    weight = 0.5 ** (1.5 + 30 / 3600)
    assert second == pytest.approx((8 * weight, 8 * weight, 8 * weight, 8))


def test_defaults_are_discounted_like_outcomes() -> None:
    allocation = Thompson(metric="any", half_life_s=3600)
    outcomes, items = [(0, MINUTE, 1, 4, 4.0, 4.0)], [(0, MINUTE, 1, 16.0)]
    plain, _ = evidence(outcomes, items, REVENUE)
    faded, _ = evidence(outcomes, items, REVENUE, allocation)
    weight = 0.5 ** ((100 - 0.5) / 60)
    assert faded == pytest.approx((*(weight * value for value in plain[:3]), 16))


def test_decisions_before_the_window_count_for_nothing_but_have_matured() -> None:
    allocation = Thompson(metric="any", window_s=1800)
    outcomes = [(0, MINUTE + 100 - 31, 1, 5, 5.0, 5.0), (0, MINUTE + 100 - 29, 1, 2, 1.0, 1.0)]
    assert evidence(outcomes, [], LABEL, allocation)[0] == Evidence(2, 1.0, 1.0, 7)


def test_the_minute_that_is_under_way_counts_whole() -> None:
    allocation = Thompson(metric="any", half_life_s=1)
    assert evidence([(0, MINUTE + 100, 1, 5, 5.0, 5.0)], [], LABEL, allocation)[0] == Evidence(5, 5, 5, 5)


def test_outcomes_are_forgotten_in_the_end_without_trouble() -> None:
    allocation = Thompson(metric="any", half_life_s=1)
    outcomes = [(0, MINUTE - 525_600, 1, 5, 5.0, 5.0)]
    assert evidence(outcomes, [], LABEL, allocation)[0] == Evidence(0, 0, 0, 5)


def test_arms_keep_their_numbers_when_others_retire() -> None:
    outcomes = [(number, MINUTE, 1, number + 1, 0.0, 0.0) for number in range(6)]
    found = fold(outcomes, [], arms=[0, 3, 5], metric=LABEL, allocation=FOREVER, now_ms=NOW_MS)
    assert [arm.n for arm in found] == [1, 4, 6]
    later = fold([], [], arms=[0, 9], metric=LABEL, allocation=FOREVER, now_ms=NOW_MS)
    assert later == (Evidence(0, 0, 0, 0),) * 2


rows = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-3000, 99),
        st.sampled_from([1, 60, 1440]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=30,
)


@given(rows, st.sampled_from([None, 60, 86_400]), st.sampled_from([None, 3600, 86_400]))
def test_fold_is_the_sum_over_rows_one_by_one(
    drawn: list[tuple[int, int, int, int, int]], half_life_s: int | None, window_s: int | None
) -> None:
    allocation = Thompson(metric="any", half_life_s=half_life_s, window_s=window_s)
    expected = np.zeros((2, 4))
    outcomes, items = [], []
    for arm, ago, span, successes, failures in drawn:
        minute = MINUTE + ago
        outcomes.append((arm, minute, span, successes, float(successes), float(successes)))
        items.append((arm, minute, span, float(successes + failures)))
        if (minute + span) * 60_000 + 600_000 > NOW_MS:
            continue
        age_s = NOW_MS / 1000 - 60 * (minute + span / 2)
        weight = 0.5 ** (age_s / half_life_s) if half_life_s else 1.0
        weight *= window_s is None or age_s <= window_s
        expected[arm] += [weight * (successes + failures), *[weight * successes] * 2, successes + failures]
    found = evidence(outcomes, items, CLICK, allocation)
    assert np.array(found) == pytest.approx(expected, abs=1e-9)
    assert all(0 <= known.total <= known.n + 1e-9 for known in found)


@given(rows, st.integers(0, 10_000))
def test_what_has_matured_never_gets_less(drawn: list[tuple[int, int, int, int, int]], minutes: int) -> None:
    outcomes = [(arm, MINUTE + ago, span, count, 0.0, 0.0) for arm, ago, span, count, _ in drawn]
    items = [(arm, MINUTE + ago, span, float(count + more)) for arm, ago, span, count, more in drawn]
    allocation = Thompson(metric="any", half_life_s=60, window_s=3600)
    before = evidence(outcomes, items, CLICK, allocation)
    after = evidence(outcomes, items, CLICK, allocation, NOW_MS + 60_000 * minutes)
    assert all(late.matured >= early.matured for early, late in zip(before, after, strict=True))
