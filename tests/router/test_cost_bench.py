"""The arithmetic of the benchmarks of cost and of the soak: what they say follows from what they measured."""

import math
import os

import numpy as np
import pytest

from bench.fleet import Fleet, Model, Part, fit, needs, rows_per_commit
from bench.processes import memory, named, spent, tree
from bench.soak import Window, trends

MODEL = Model(Part(100, 2000), Part(50, 500), Part(0.0001, 0.005), Part(700, 300), 650)


def test_the_fit_finds_what_the_costs_were_made_of() -> None:
    together = [1.0, 4.0, 20.0, 60.0]
    assert fit(together, [MODEL.router_us.of_row(each) for each in together]) == pytest.approx((100, 2000))


def test_no_part_of_the_fit_is_negative() -> None:
    assert fit([1.0, 2.0, 4.0], [10.0, 10.5, 11.0]) == pytest.approx((10.468, 0.0), abs=0.001)
    assert fit([1.0, 2.0, 4.0], [8.0, 3.0, 1.0]).per_row == 0.0
    assert fit([1.0, 2.0], [0.0, 0.0]) == (0.0, 0.0)


def test_rows_that_come_during_a_commit_share_the_next_one() -> None:
    commit = Part(0.0001, 0.005)
    assert rows_per_commit(commit, 10) == 1
    together = rows_per_commit(commit, 5000)
    assert together == pytest.approx(5000 * (commit.per_commit + together * commit.per_row))
    assert math.isinf(rows_per_commit(commit, 10_000))


def test_a_fleet_needs_what_its_rows_and_commits_cost() -> None:
    fleet = Fleet(86_400 * 40_000, 10, 1)
    found = needs(MODEL, fleet, fleet.mean_rate)
    assert found.rate_of_replica == 4000
    assert found.rows_per_commit == pytest.approx(4000 * 0.005 / 0.6)
    assert found.commits_per_s == pytest.approx(1200)
    assert found.router_cores == pytest.approx(40_000 * 100e-6 + 1200 * 2000e-6)
    assert found.database_cores == pytest.approx(40_000 * 50e-6 + 1200 * 500e-6)
    assert found.log_mb_per_s == pytest.approx((40_000 * 700 + 1200 * 300) / 1e6)


def windows(mib_per_million: float, seed: int = 0, noise_mib: float = 0.2) -> list[Window]:
    generator = np.random.default_rng(seed)
    made = np.arange(1, 201) * 25_000
    rss = 140 + made / 1e6 * mib_per_million + generator.normal(0, noise_mib, 200)
    # Caches fill in the beginning.
    rss -= 30 * np.exp(-made / 50_000)
    latency = generator.normal(8, 0.05, 200)
    return [
        Window(int(count), 0.0, mib, mib, mib, 8000.0, p50, 2 * p50)
        for count, mib, p50 in zip(made, rss.tolist(), latency.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("slope", "verdict"), [(0.0, "flat"), (5.0, "grows")])
def test_a_soak_says_whether_memory_grows(slope: float, verdict: str) -> None:
    found = {trend.name: trend for trend in trends(windows(slope), 0.1)}
    assert found["memory, RSS"].verdict == verdict
    assert abs(found["memory, RSS"].slope - slope) < 3 * found["memory, RSS"].error
    assert found["latency, p50"].verdict == "flat"


def test_a_soak_that_is_too_noisy_does_not_say() -> None:
    found = trends(windows(1.0, noise_mib=20), 0.1)
    assert found[0].verdict == "insufficient"


def test_errors_of_slopes_are_as_large_as_slopes_vary() -> None:
    found = [trends(windows(0.0, seed), 0.1)[0] for seed in range(200)]
    varied, said = np.std([each.slope for each in found]), np.mean([each.error for each in found])
    assert 0.8 < said / varied < 1.25


def test_a_soak_of_few_windows_is_refused() -> None:
    with pytest.raises(RuntimeError, match="say nothing"):
        trends(windows(0.0)[:4], 0.0)


def test_processes_are_read_from_proc() -> None:
    own = os.getpid()
    assert own in tree(own)
    before = spent([own])
    while spent([own]).since(before).seconds < 0.02:
        pass
    taken = memory([own])
    assert taken.rss_mib >= taken.pss_mib > 1
    assert taken.rss_mib >= taken.anonymous_mib > 1
    assert named("no such process") == []
