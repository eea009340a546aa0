import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from analysis.statistics.e_values import (
    average,
    benjamini_hochberg,
    bonferroni,
    e_benjamini_hochberg,
    from_p_values,
    holm,
    product,
    to_p_values,
)

families = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_combinations_by_hand() -> None:
    assert average([1, 2, 6]) == 3
    assert average([1, 2, 6], weights=[2, 0, 2]) == 3.5
    assert product([0.5, 4, 10]) == pytest.approx(20)
    assert product([0, math.inf]) == 0
    assert average([0, math.inf], weights=[1, 0]) == 0


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.5]
    assert benjamini_hochberg(p) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert bonferroni(p) == pytest.approx([0.04, 0.16, 0.12, 1])
    # The two largest of 40, 2 and 30 are at least 3 / (2 * 0.05), all three at least 3 / (3 * 0.5).
    assert e_benjamini_hochberg([40, 2, 30]) == pytest.approx([0.05, 0.5, 0.05])


def test_calibrators_by_hand() -> None:
    assert from_p_values([0.01], kappa=0.5) == pytest.approx([5])
    assert from_p_values([math.exp(-1), 1, 0]) == pytest.approx([math.e - 2, 0.5, math.inf])
    assert from_p_values([0.01])[0] == pytest.approx(4.5, abs=0.05)
    assert to_p_values([0, 0.5, 20, math.inf]).tolist() == [1, 1, 0.05, 0]


@given(families)
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(families, st.floats(0.01, 0.99))
def test_holm_rejects_what_the_steps_reject(p: list[float], level: float) -> None:
    rejected = [False] * len(p)
    for step, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] * (len(p) - step) > level:
            break
        rejected[place] = True
    assert (holm(p) <= level).tolist() == rejected


def rejected_by_definition(e: list[float], level: float) -> list[bool]:
    descending = sorted(e, reverse=True)
    most = max((k for k in range(1, len(e) + 1) if k * descending[k - 1] >= len(e) / level), default=0)
    return [most > 0 and value >= descending[most - 1] for value in e]


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=12))
def test_e_benjamini_hochberg_rejects_what_its_definition_rejects(e: list[float]) -> None:
    for place, adjusted in enumerate(e_benjamini_hochberg(e).tolist()):
        if adjusted < 1:
            assert rejected_by_definition(e, adjusted * (1 + 1e-9))[place]
        assert not rejected_by_definition(e, adjusted * (1 - 1e-9))[place]


@pytest.mark.parametrize("kappa", [None, 0.3, 0.7])
def test_the_calibrator_of_a_uniform_p_value_has_mean_1(kappa: float | None) -> None:
    # In x = -ln p the integrand is smooth, but for a slow end, which is 1 / x of the mixture.
    reach = 200.0
    mean = integrate.quad(lambda x: float(from_p_values([math.exp(-x)], kappa)[0]) * math.exp(-x), 0, reach, limit=200)[
        0
    ]
    assert mean == pytest.approx(1 - 1 / reach if kappa is None else 1, abs=1e-6)


def test_the_mixture_is_the_integral_over_kappa_even_near_1() -> None:
    for p in (1e-12, 0.3, 0.9989, 0.9991, 1 - 1e-12):
        expected = integrate.quad(lambda kappa, p=p: kappa * p ** (kappa - 1), 0, 1, points=[0.1], limit=200)[0]
        assert from_p_values([p])[0] == pytest.approx(expected, rel=1e-9)


def test_what_was_not_tested_is_left_out() -> None:
    p, without = [0.01, math.nan, 0.04], [0.01, 0.04]
    for correct in (benjamini_hochberg, holm, bonferroni):
        assert math.isnan(correct(p)[1])
        assert correct(p)[[0, 2]].tolist() == correct(without).tolist()
    assert math.isnan(from_p_values(p)[1])


def test_false_discoveries_stay_below_the_rate_even_if_tests_depend_on_each_other() -> None:
    generator = np.random.default_rng(3)
    repetitions, nulls, rate = 2000, 8, 0.1
    discoveries = np.zeros(repetitions)
    powers = np.zeros(repetitions)
    for number in range(repetitions):
        # The likelihood ratio of a mean of 3 is an e-value; half of every score is shared.
        shared = generator.normal()
        scores = (generator.normal(size=10) + shared) / math.sqrt(2) + np.where(np.arange(10) < nulls, 0, 4)
        rejected = e_benjamini_hochberg(np.exp(3 * scores - 4.5)) <= rate
        discoveries[number] = rejected[:nulls].sum() / max(rejected.sum(), 1)
        powers[number] = rejected[nulls:].mean()
    assert discoveries.mean() <= rate + 4 * discoveries.std() / math.sqrt(repetitions)
    assert powers.mean() > 0.5


@pytest.mark.parametrize("values", [[], [-1.0], [math.nan]])
def test_what_is_no_e_value_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        average(values)


def test_what_is_no_p_value_weight_or_kappa_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.5])
    with pytest.raises(ValueError, match="kappa"):
        from_p_values([0.5], kappa=1)
    for weights in ([0, 0], [-1, 2], [math.inf, 1]):
        with pytest.raises(ValueError, match="weights"):
            average([1, 2], weights)
