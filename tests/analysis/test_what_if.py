import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.errors import InvalidPolicy, UnknownArm, UnknownMetric
from analysis.report import Report, load
from analysis.statistics import off_policy
from tests.analysis.ledgers import CLICK, DAY_MS, RATIO, REVENUE, START_MS, Ledger
from tests.databases import BACKENDS, database

NAME = "boosting-vs-logistic"
CHANCES = {"vip": (0.2, 0.6), "basic": (0.5, 0.3)}
"""Of a click, by the unit's tier, with control and boosting."""
METRICS: list[dict[str, Any]] = [{**CLICK, "default": None}, {**REVENUE, "role": "secondary"}, RATIO]


def clicks(count: int = 1200, *, seed: int = 4, allocation: dict[str, Any] | None = None) -> Ledger:
    """Two or more visits of every unit; boosting is shown to one half first, and to a fifth later."""
    generator = np.random.default_rng(seed)
    ledger = Ledger()
    shares = ((0.5, 0.5), (0.8, 0.2))
    experiment = ledger.add_experiment(METRICS, epochs=shares, randomise="request", allocation=allocation)
    for number in range(count):
        epoch, tier = 1 + (number >= count // 2), ("vip", "basic")[number % 3 == 0]
        arm = int(generator.uniform() < shares[epoch - 1][1])
        key = ledger.decide(experiment, arm, f"u{number % 401}", START_MS + number, epoch=epoch)
        context = {"tier": tier, "age": number} if number % 5 else None
        ledger.decisions[-1] |= {
            "propensity": shares[epoch - 1][arm],
            "context": None if context is None else json.dumps(context),
        }
        if number % 10:
            ledger.observe(key, "click", generator.uniform() < CHANCES[tier][arm])
    return ledger


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return load(NAME, clicks().write_sqlite(tmp_path_factory.mktemp("what_if") / "a.db"), now_ms=START_MS + DAY_MS)


def rows_of(ledger: Ledger) -> tuple[off_policy.Log, list[int]]:
    """The log with a row per decision that has an outcome, and the group of each: vip is 0."""
    clicked = {row["decision_id"]: row["value"] for row in ledger.outcomes}
    rows = [row for row in ledger.decisions if row["id"] in clicked]
    shares = np.array([[0.5, 0.5], [0.8, 0.2]])
    log = off_policy.make_log(
        [row["unit"] for row in rows],
        [row["arm"] for row in rows],
        [clicked[row["id"]] for row in rows],
        shares[[row["epoch"] - 1 for row in rows]],
    )
    return log, [0 if '"vip"' in str(row["context"]) else 1 for row in rows]


@pytest.mark.parametrize("backend", [*BACKENDS, "lake"])
def test_engines_find_what_rows_say(tmp_path: Path, backend: str) -> None:
    ledger = clicks()
    log, groups = rows_of(ledger)
    shares = np.array([[0.1, 0.9], [1.0, 0.0]])[groups]
    by_tier = {"vip": {"control": 0.1, "boosting": 0.9}, None: {"control": 1.0}}

    def check(source: str | Path) -> None:
        loaded = load(NAME, source, now_ms=START_MS + DAY_MS)
        for found, policy, expected in (
            (loaded.off_policy({"boosting": 1.0}), np.array([[0.0, 1.0]]), off_policy.arm_means(log)),
            (loaded.off_policy(by_tier, field="tier"), shares, off_policy.group_means(log, groups)),
        ):
            direct = off_policy.evaluate(log, policy, expected)
            assert direct.estimates is not None
            assert found.estimates is not None
            for name in ("ips", "snips", "dm", "dr", "switch_dr", "gain"):
                assert getattr(found.estimates, name) == pytest.approx(getattr(direct.estimates, name), rel=1e-9)
            assert found.overlap.effective_sample_size == pytest.approx(direct.overlap.effective_sample_size, rel=1e-9)
            assert found.overlap.censored_share == pytest.approx(0.1)
            assert found.weights["observations"].sum() == 1080

    if backend == "lake":
        check(ledger.write_lake(tmp_path))
    else:
        with database(backend, tmp_path) as url:
            check(ledger.write(url))


def test_the_best_arm_of_each_tier_is_worth_what_it_is_worth(report: Report) -> None:
    found = report.off_policy({"vip": {"boosting": 1.0}, None: {"control": 1.0}}, field="tier")
    assert found.estimates is not None
    # A ninth of those with an outcome say nothing of their tier, so that the policy gives them the control.
    mixture = 8 / 9 * (2 / 3 * 0.6 + 1 / 3 * 0.5) + 1 / 9 * (2 / 3 * 0.2 + 1 / 3 * 0.5)
    assert abs(found.estimates.dr.value - mixture) < 4 * found.estimates.dr.error
    assert found.verdict == "better"
    assert found.reason.startswith("the policy by tier would have made click 0.5")
    assert f"instead of {found.logged.value:.3f}: +0." in found.reason


def test_frame_has_every_estimator_and_the_traffic_as_it_was(report: Report) -> None:
    frame = report.off_policy({"control": 0.7, "boosting": 0.3}).frame()
    assert list(frame["estimator"]) == ["ips", "snips", "dm", "dr", "switch_dr", "logged"]
    assert ((frame["low"] < frame["value"]) & (frame["value"] < frame["high"])).all()
    same = report.off_policy({"control": 0.7, "boosting": 0.3})
    assert same.verdict == "insufficient"
    assert same.reason.startswith("not enough evidence: the change that control 0.7, boosting 0.3 would have made")


def test_without_overlap_there_are_no_estimates(tmp_path: Path) -> None:
    ledger = clicks(120)
    runs = [[9_000, 0], [1_000, 1]]
    for row in ledger.epochs:
        row["runs"] = json.dumps(runs)
    for row in ledger.decisions:
        row["arm"] = int(row["id"][-1] % 40 == 1)
    arms = {row["id"]: row["arm"] for row in ledger.decisions}
    for row in ledger.outcomes:
        row["arm"] = arms[row["decision_id"]]
    loaded = load(NAME, ledger.write_sqlite(tmp_path / "a.db"), now_ms=START_MS + DAY_MS)
    found = loaded.off_policy({"boosting": 1.0})
    assert found.estimates is None
    assert found.reason == "no overlap: effective sample size 3.0, below 100, with a largest weight of 10.0"
    assert found.frame()[["value", "low", "high"]].iloc[:-1].isna().all(axis=None)


def test_what_was_never_possible_is_not_estimated(tmp_path: Path) -> None:
    ledger = clicks()
    ledger.epochs[1]["runs"] = json.dumps([[10_000, 0]])
    late = {row["id"] for row in ledger.decisions if row["epoch"] == 2}
    for row in (*ledger.decisions, *ledger.outcomes):
        row["arm"] = 0 if row.get("id", row.get("decision_id")) in late else row["arm"]
    loaded = load(NAME, ledger.write_sqlite(tmp_path / "a.db"), now_ms=START_MS + DAY_MS)
    assert loaded.off_policy({"boosting": 1.0}).reason == (
        "no overlap: 50.0% of the policy's choices were never possible in the log, above 1.0%"
    )


def test_contextual_experiments_use_the_propensity_of_the_chosen_arm(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    ledger = Ledger()
    allocation = {"kind": "contextual", "metric": "click", "features": []}
    arms = ("control", "boosting", "forest")
    experiment = ledger.add_experiment(
        METRICS[:1], arms=arms, epochs=((0.4, 0.3, 0.3),), randomise="request", allocation=allocation, holdouts=(0.2,)
    )
    total = 0.0
    for number in range(500):
        shares = generator.dirichlet((5.0, 5.0, 5.0))
        arm = int(generator.choice(3, p=shares))
        key = ledger.decide(experiment, arm, f"u{number}", START_MS + number)
        ledger.decisions[-1]["propensity"] = 0.8 * shares[arm]
        clicked = generator.uniform() < 0.2 + 0.2 * arm
        ledger.observe(key, "click", clicked)
        total += clicked / shares[2] if arm == 2 else 0.0
    loaded = load(NAME, ledger.write_sqlite(tmp_path / "a.db"), now_ms=START_MS + DAY_MS)
    found = loaded.off_policy({"forest": 1.0}, limits=off_policy.Limits(effective_sample_size=50))
    assert found.estimates is not None
    assert found.estimates.ips.value == pytest.approx(total / 500)
    assert "switch_dr" not in set(found.frame()["estimator"])
    assert found.reason.startswith("forest alone would have made click 0.")


def test_what_cannot_be_asked(report: Report) -> None:
    with pytest.raises(UnknownArm, match="no arm 'forest'; it has: control, boosting"):
        report.off_policy({"forest": 1.0})
    with pytest.raises(InvalidPolicy, match=r"sum to 1; these sum to 0\.9"):
        report.off_policy({"control": 0.9})
    with pytest.raises(InvalidPolicy, match="nothing of other values of 'tier'; give their shares under None"):
        report.off_policy({"vip": {"control": 1.0}}, field="tier")
    by_tier: dict[Any, Any] = {"vip": 1.0, None: {"control": 1.0}}
    with pytest.raises(InvalidPolicy, match="gives shares by arm"):
        report.off_policy(by_tier, field="tier")
    with pytest.raises(UnknownMetric, match="'value-per-visit' is a ratio; declare metrics of 'value' and 'visit'"):
        report.off_policy({"control": 1.0}, "value-per-visit")


def test_nothing_observed_is_no_overlap(report: Report) -> None:
    found = report.off_policy({"boosting": 1.0}, "revenue")
    assert (found.verdict, found.reason) == ("no overlap", "no overlap: no decision has an outcome of revenue yet")
    assert found.overlap.censored_share == 1
    assert found.frame()["value"].isna().all()
