import pytest

from bench.reweighting import Step, run, uniformity, worst_deviation

UNITS = 20_000


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """Fifty reweightings; names and seed are fixed, so nothing here fails by chance."""
    return run([f"user-{number}" for number in range(UNITS)], reweightings=50, seed=1)


def test_reweighting_moves_the_fewest_units(steps: list[Step]) -> None:
    assert all(step.moved_buckets == step.minimum for step in steps)
    # The hash spreads units over buckets at random, so the share that moves varies as a binomial one does.
    assert worst_deviation(steps, UNITS) < 4
    assert sum(step.moved for step in steps) == pytest.approx(sum(step.minimum for step in steps), rel=0.01)


def test_reweighting_moves_fewer_units_than_a_new_layout_or_seed(steps: list[Step]) -> None:
    moved, laid_out, reseeded = (
        sum(getattr(step, name) for step in steps) for name in ("moved", "laid_out", "reseeded")
    )
    assert 1.4 * moved < laid_out
    assert 3 * moved < reseeded


def test_frequencies_follow_every_table(steps: list[Step]) -> None:
    assert min(step.p_value for step in steps) > 0.001
    assert min(step.p_value_within for step in steps) > 0.001
    assert uniformity(steps) > 0.01
