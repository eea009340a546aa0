import numpy as np
import pytest
from scipy import stats

from analysis.statistics.heterogeneity import heterogeneity


def test_two_effects_by_hand() -> None:
    found = heterogeneity([1.0, 4.0], [1.0, 2.0])
    # The weighted mean is (1 + 4 / 4) / (1 + 1 / 4) = 1.6.
    assert found.q == pytest.approx(0.6**2 + 2.4**2 / 4)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(3 / 5**0.5))
    assert found.i_squared == pytest.approx(1 - 1 / 1.8)


def test_equal_effects_differ_by_nothing() -> None:
    assert heterogeneity([0.5, 0.5, 0.5], [1.0, 2.0, 0.1], [3, 4, 5])[1:] == (0.0, 1.0, 0.0)


def test_means_of_groups_are_welch_s_analysis_of_variance() -> None:
    generator = np.random.default_rng(1)
    groups = [
        generator.normal(mean, sd, size) for mean, sd, size in ((0, 1, 12), (0.5, 3, 40), (0.4, 0.5, 9), (1, 2, 25))
    ]
    expected = stats.f_oneway(*groups, equal_var=False)
    errors = [group.std(ddof=1) / len(group) ** 0.5 for group in groups]
    found = heterogeneity([group.mean() for group in groups], errors, [len(group) - 1 for group in groups])
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_error_is_right_where_errors_are_estimates() -> None:
    """Twenty segments of few units: the chi-square of Q calls them different too often, Welch's F does not."""
    generator, runs, segments, units = np.random.default_rng(2), 4000, 20, 15
    arms = generator.normal(size=(2, runs, segments, units))
    effects = np.diff(arms.mean(axis=3), axis=0)[0]
    variances = arms.var(axis=3, ddof=1) / units
    errors = np.sqrt(variances.sum(axis=0))
    degrees = variances.sum(axis=0) ** 2 / (variances**2 / (units - 1)).sum(axis=0)
    found = [heterogeneity(*each).p_value < 0.05 for each in zip(effects, errors, degrees, strict=True)]
    naive = [heterogeneity(*each).p_value < 0.05 for each in zip(effects, errors, strict=True)]
    allowed = 3 * (0.05 * 0.95 / runs) ** 0.5
    assert np.mean(found) < 0.05 + allowed
    assert np.mean(naive) > 0.05 + 3 * allowed


@pytest.mark.parametrize(
    ("effects", "errors", "message"),
    [
        ([1.0], [1.0], "takes two of them; there are 1"),
        ([1.0, 2.0], [1.0, 0.0], "positive"),
        ([1.0, np.nan], [1, 1], "finite"),
    ],
)
def test_what_cannot_be_tested_is_refused(effects: list[float], errors: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heterogeneity(effects, errors)
