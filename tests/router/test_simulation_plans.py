import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from router.documents import Experiment, Split, Thompson
from router.errors import InvalidDocument
from router.simulation.plans import read_plan
from router.simulation.settings import all_equal, with_rule
from router.simulation.steps import GROWTH
from router.simulation.traffic import expected_requests
from tests.router.simulations import REVENUE, even, plan, rehearsal, setting

EXAMPLE = Path("docs/examples/simulate-bandit.json")
INF = float("inf")
_REMOVED = "removed"

BAD: list[tuple[str, Any, str]] = [
    ("world", _REMOVED, "world: it is missing; add it"),
    ("world.typo", 3, "world.typo: there is no such field; remove it"),
    ("world.requests_per_hour", 0, "world.requests_per_hour: here stands 0; give a number > 0.0"),
    ("world.requests_per_hour", "many", 'world.requests_per_hour: here stands "many"; give a number'),
    ("world.requests_per_hour", _REMOVED, "world.requests_per_hour: it is missing; add it"),
    ("world.arms", _REMOVED, "world.arms: say what the arms' values are"),
    ("world.arms.new", _REMOVED, "world.arms: arm 'new' is missing; say what its values are, such as {\"probability\""),
    ("world.arms.newest", {"probability": 0.1}, "world.arms: 'newest' is not an arm; arms: control, new"),
    ("world.arms.new.probability", 1.5, "world.arms.new.probability: here stands 1.5; give a number <= 1.0"),
    ("world.arms.new.odds", 2, "world.arms.new.odds: there is no such field; remove it"),
    ("world.arms.new", {"mean": 1, "sd": 1}, "world.arms.new: 'click' is 0 or 1, so it takes probability"),
    ("world.arms.new", {}, "here stands nothing"),
    ("world.logged", {"csv": "values.csv"}, "either in `arms` or by `logged`, and not in both"),
    ("world.daily", [1, 2], "world.daily: a day has 24 hours; this one has 2: give one number for each"),
    ("world.daily", [0] * 24, "world.daily: no hour has any traffic; give each hour a number"),
    ("world.daily", [1] * 23 + [-1], "world.daily[23]: here stands -1; give a number >= 0.0"),
    ("world.delay", {"kind": "gamma"}, 'world.delay.kind: here stands "gamma"; give fixed or exponential'),
    ("world.delay", {"kind": "exponential", "mean_s": 0}, "world.delay.mean_s: here stands 0; give a number > 0.0"),
    ("world.missing", 1, "world.missing: here stands 1; give a number < 1.0"),
    ("world.changes", [{"after_days": 1}], "world.changes[0].arms: say either new values for some `arms`, or which"),
    ("world.changes", [{"after_days": 1, "swap": ["new", "old"]}], "world.changes[0].swap: 'old' is not an arm with"),
    ("world.changes", [{"after_days": 1, "swap": ["new", "new"]}], "world.changes[0].swap: both are 'new'; name two"),
    ("world.changes", [{"after_days": 1, "swap": ["new"]}], 'here stands ["new"]; give a list of length 2'),
    (
        "world.changes",
        [{"after_days": 1, "arms": {"new": {"probability": 7}}}],
        "world.changes[0].arms.new.probability",
    ),
    ("world.changes", [{"after_days": INF, "swap": ["new", "control"]}], "inf is not finite; give a number of days"),
    ("world.arms", None, "world.arms: say what the arms' values are"),
    ("experiment.arms", [], "experiment.arms: an experiment has 2 to 100 arms; this one has 0"),
    ("experiment.metrics", "click", 'experiment.metrics: here stands "click"; give a list'),
    ("experiment.allocation.metric", "clack", "experiment.allocation.metric: 'clack' is not a metric"),
    ("experiment.allocation.floor", 0.5, "experiment.allocation.floor: 2 arms with a floor of 0.5 each leave nothing"),
    (
        "experiment.allocation",
        {"kind": "contextual", "metric": "click", "features": [{"kind": "number", "name": "h", "low": 0, "high": 1}]},
        "experiment.allocation.kind: a world has no contexts, so 'contextual' cannot be rehearsed; rehearse 'thompson'",
    ),
    (
        "experiment.allocation",
        {"kind": "interleave", "method": "team_draft"},
        "experiment.allocation.kind: a world has no rankings, so 'interleave' cannot be rehearsed; rehearse a 'split'",
    ),
]


def _altered(path: str, value: Any) -> Any:
    content = deepcopy(plan())
    *folders, last = path.split(".")
    place = content
    for folder in folders:
        place = place[folder]
    if value == _REMOVED:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{n}-{path}" for n, (path, *_) in enumerate(BAD)])
def test_what_is_wrong_is_named_with_its_value_and_a_remedy(path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        rehearsal(_altered(path, value))
    assert message in str(raised.value)
    assert raised.value.field is not None
    assert str(raised.value).startswith(f"{raised.value.field}: ")


@pytest.mark.parametrize("content", [[], 3, "plan", None], ids=["list", "number", "text", "null"])
def test_what_is_no_object_is_no_plan(content: Any) -> None:
    with pytest.raises(InvalidDocument, match=r"^the plan: here stands .*; give an object"):
        rehearsal(content)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InvalidDocument) as raised:
        rehearsal(_altered("world.requests_per_hour", list(range(1000))))
    assert len(str(raised.value)) < 140


def test_a_ratio_cannot_be_rehearsed() -> None:
    ratio = {"name": "y", "kind": "ratio", "numerator": "a", "denominator": "b", "direction": "increase"}
    with pytest.raises(InvalidDocument, match="primary metric 'y' is a ratio, whose parts a world does not have; make"):
        rehearsal(plan(allocation=even("control", "new"), metric={**ratio, "role": "primary"}))


def test_a_number_takes_mean_and_standard_deviation() -> None:
    with pytest.raises(InvalidDocument, match="'revenue' is a number, so it takes mean and sd"):
        rehearsal(plan(metric=REVENUE, allocation={"kind": "thompson", "metric": "revenue"}))


def test_a_number_is_finite() -> None:
    arms = {"control": {"mean": 0, "sd": 1}, "new": {"mean": INF, "sd": 1}}
    with pytest.raises(InvalidDocument, match=r"world.arms.new: .* is not finite; give finite numbers"):
        rehearsal(plan(arms, metric=REVENUE, allocation={"kind": "thompson", "metric": "revenue"}))


@pytest.mark.parametrize("logged", [{}, {"csv": "values.csv", "experiment": "first"}], ids=["neither", "both"])
def test_logged_values_come_from_one_place(logged: dict[str, str]) -> None:
    content = plan()
    content["world"] = {"requests_per_hour": 1, "logged": logged}
    with pytest.raises(InvalidDocument, match=r"^world\.logged: name either a file, as `csv`, or an `experiment`"):
        rehearsal(content)


def test_an_experiment_can_be_named() -> None:
    document = msgspec.convert(plan()["experiment"], Experiment)
    asked = []

    def stored(name: str) -> Experiment:
        asked.append(name)
        return document

    assert read_plan({**plan(), "experiment": "rehearsed"}, stored).experiment is document
    assert asked == ["rehearsed"]


def test_the_example_of_the_documentation_is_a_plan() -> None:
    assert rehearsal(json.loads(EXAMPLE.read_text())).live == ("control", "boosting", "forest", "calibrated")


def test_changes_come_in_order_and_change_places_of_what_is_there() -> None:
    changes = [
        {"after_days": 2, "swap": ["control", "new"]},
        {"after_days": 1, "arms": {"control": {"probability": 0.3}}},
    ]
    found = setting(plan(changes=changes), 3)
    assert [phase.start for phase in found.phases] == [0, 1440, 2880]
    assert [[each.mean for each in phase.values] for phase in found.phases] == [[0.1, 0.12], [0.3, 0.12], [0.12, 0.3]]
    assert [found.best(phase) for phase in found.phases] == [("new",), ("control",), ("new",)]
    assert {1440, 2880} < set(found.ends)


def test_steps_begin_with_a_minute_and_grow_with_what_is_known() -> None:
    ends = np.array(setting(plan(), 14).ends)
    sizes = np.diff(ends)
    assert (ends[0], ends[-1]) == (0, 14 * 1440)
    assert sizes[0] == 1
    assert (sizes <= np.maximum(GROWTH * ends[:-1], 1)).all()
    assert len(ends) < 600


def test_steps_are_short_against_a_half_life() -> None:
    forgetful = {"kind": "thompson", "metric": "click", "half_life_s": 86_400}
    assert np.diff(setting(plan(allocation=forgetful), 14).ends).max() <= GROWTH * 1440


def test_steps_of_equal_length_are_cut_by_changes_only() -> None:
    found = setting(plan(changes=[{"after_days": 0.26, "swap": ["control", "new"]}]), 1, step=60)
    assert found.ends == (*range(0, 361, 60), 374, *range(420, 1441, 60))


def test_traffic_follows_the_hours_and_keeps_its_mean() -> None:
    daily = [0.0] * 6 + [3.0] * 18
    by_hour = expected_requests(600, daily, np.arange(0, 2 * 1440 + 1, 60))
    assert by_hour.sum() == pytest.approx(2 * 24 * 600)
    assert by_hour[:7] == pytest.approx([0] * 6 + [800])
    assert expected_requests(600, None, [0, 1, 61]) == pytest.approx([10, 600])


def test_an_experiments_own_traffic_takes_a_part() -> None:
    assert setting(plan(document={"traffic": 0.25}), 1).requests.sum() == pytest.approx(6000)


def test_other_rules_and_equal_arms_leave_the_world_as_it_is() -> None:
    found = setting(plan(), 1)
    split, top_two = with_rule(found, "split"), with_rule(found, "top-two")
    assert split.document.allocation == Split(weights={"control": 0.5, "new": 0.5})
    assert top_two.document.allocation == Thompson(metric="click", floor=0.05, top_two=True)
    assert [each.mean for each in all_equal(found).phases[0].values] == [0.1, 0.1]
    assert (split.world, split.ends) == (found.world, found.ends)
