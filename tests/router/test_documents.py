import re
from typing import Any

import msgspec
import pytest

from router.allocation.tables import fixed_counts
from router.assignment.epochs import HOLDOUT
from router.documents import Endpoint, Experiment, check_experiment, split_path
from router.errors import InvalidDocument
from tests.metrics import BRIER


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "boosting-vs-logistic",
        "endpoint": "flight-delay",
        "arms": [{"name": "control", "model": "logistic@3"}, {"name": "boosting", "model": "boosting@1"}],
        "allocation": {"kind": "split", "weights": {"control": 0.9, "boosting": 0.1}},
        "metrics": [
            BRIER,
            {
                "name": "click",
                "kind": "binary",
                "default": 0,
                "direction": "increase",
                "role": "guardrail",
                "margin": 0.01,
            },
        ],
        **changes,
    }


def parse(**changes: Any) -> Experiment:
    return msgspec.convert(document(**changes), Experiment)


def metric(**fields: Any) -> dict[str, Any]:
    return {"name": "m", "kind": "binary", "direction": "increase", "role": "primary", **fields}


def test_experiment_round_trips_through_json() -> None:
    experiment = parse()
    assert msgspec.json.decode(msgspec.json.encode(experiment), type=Experiment) == experiment
    check_experiment(experiment, kind="predict", output="probability")


def test_experiment_weights_follow_the_arms() -> None:
    assert fixed_counts(parse()) == {0: 9000, 1: 1000, HOLDOUT: 0}


def test_experiment_shares_leave_out_the_holdout() -> None:
    assert fixed_counts(parse(holdout=0.2)) == {0: 7200, 1: 800, HOLDOUT: 2000}


def test_experiment_names_what_stands_in_a_table() -> None:
    assert [parse().arm_name(number) for number in (0, 1, 255)] == ["control", "boosting", "holdout"]


def test_experiment_takes_shares_of_one_bucket_and_of_none() -> None:
    weights = {"control": 1.0, "boosting": 0.0}
    for changes in ({"allocation": {"kind": "split", "weights": weights}}, {"traffic": 0.0}, {"traffic": 0.0001}):
        check_experiment(parse(**changes), kind="predict", output="probability")
    # In floating point the share is 0.00009999999999999998.
    weights = {"control": 0.999, "boosting": 0.001}
    check_experiment(
        parse(holdout=0.9, allocation={"kind": "split", "weights": weights}), kind="predict", output="probability"
    )


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        (
            {"allocation": {"kind": "split", "weights": {"control": 0.9, "boosting": 0.2}}},
            "allocation.weights",
            "sum to 1.1",
        ),
        (
            {"allocation": {"kind": "split", "weights": {"control": 1.0}}},
            "allocation.weights",
            "'boosting' has no weight",
        ),
        (
            {"allocation": {"kind": "split", "weights": {"control": 0.5, "boosting": 0.25, "forest": 0.25}}},
            "allocation.weights",
            "'forest' is not an arm",
        ),
        ({"arms": [{"name": "control", "model": "a@1"}]}, "arms", "this one has 1"),
        ({"arms": [{"name": "a", "model": "a@1"}] * 2}, "arms", "'a' stands twice"),
        ({"metrics": []}, "metrics", "one primary metric; this one has 0"),
        ({"metrics": [metric(), metric()]}, "metrics", "this one has 2"),
        ({"metrics": [metric(), metric(role="secondary")]}, "metrics", "metric name 'm' stands twice"),
        ({"metrics": [metric(), metric(name="g", role="guardrail")]}, "metrics[1].margin", "needs the margin"),
        (
            {"metrics": [metric(kind="ratio", numerator="a", denominator="a")]},
            "metrics[0].denominator",
            "both 'a'",
        ),
        (
            {
                "metrics": [
                    metric(name="brier", kind="score", score="brier", label="late"),
                    metric(name="odd", kind="ratio", numerator="brier", denominator="n", role="secondary"),
                ]
            },
            "metrics[1]",
            "'brier' is computed by a score metric",
        ),
        (
            {"arms": [{"name": "control", "model": "a@1"}, {"name": "holdout", "model": "b@1"}]},
            "arms",
            "'holdout' is what replies call the units that no arm gets; choose another name",
        ),
        (
            {"allocation": {"kind": "split", "weights": {"control": 0.9999, "boosting": 0.0001}}, "holdout": 0.5},
            "allocation.weights",
            "arm 'boosting' would get a share of 5e-05; the smallest is 0.0001, or none: 0",
        ),
        (
            {"metrics": [metric(kind="numeric", default=-1e101)]},
            "metrics[0].default",
            "the default must lie within 1e+100 of 0, but is -1e+101",
        ),
        (
            {"metrics": [metric(kind="numeric", default=float("nan"))]},
            "metrics[0].default",
            "within 1e+100 of 0, but is nan",
        ),
        (
            {"metrics": [metric(kind="numeric", winsorise={})]},
            "metrics[0].winsorise",
            "it has no limit; give it low, high or both",
        ),
        (
            {"metrics": [metric(kind="numeric", winsorise={"low": 5, "high": 5})]},
            "metrics[0].winsorise.low",
            "low (5) must be below high (5)",
        ),
        (
            {"metrics": [metric(kind="numeric", winsorise={"low": 0, "high": float("inf")})]},
            "metrics[0].winsorise.high",
            "a limit must lie within 1e+100 of 0, but this one is inf",
        ),
        (
            {"metrics": [metric(kind="numeric", winsorise={"low": float("nan")})]},
            "metrics[0].winsorise.low",
            "this one is nan",
        ),
        (
            {"metrics": [metric(kind="numeric", default=0, winsorise={"low": 1, "high": 9})]},
            "metrics[0].default",
            "the default 0 is beyond the limits and would count as 1; put it between them",
        ),
        (
            {"allocation": {"kind": "thompson", "metric": "click"}, "holdout": 0.9999},
            "holdout",
            "a holdout of 0.9999 leaves less than 0.0001 for each of 2 arms; hold out less",
        ),
        (
            {"allocation": {"kind": "thompson", "metric": "m", "window_s": 726}, "metrics": [metric(default=0)]},
            "allocation.window_s",
            "set allocation.window_s to at least 95100",
        ),
        ({"holdout": 0.00009}, "holdout", "the holdout would get a share of 9e-05"),
        ({"traffic": 0.00001}, "traffic", "the experiment would get a share of 1e-05"),
        ({"randomise": "request", "sticky": True}, "sticky", "set randomise to 'unit' or sticky to false"),
        (
            {"audience": [{"attribute": "origin", "op": "in", "value": "JFK"}]},
            "audience[0].value",
            "takes a list of values",
        ),
    ],
)
def test_check_experiment_names_the_contradiction(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidDocument, match=re.escape(message)) as caught:
        check_experiment(parse(**changes), kind="predict", output="probability")
    assert caught.value.field == field


SLOW_CONTROL = {"name": "control", "model": "logistic@3", "timeout_ms": 400}
QUICK = {"name": "boosting", "model": "boosting@1", "timeout_ms": 50}
UNSAID = {"name": "boosting", "model": "boosting@1"}


@pytest.mark.parametrize(
    ("arms", "slow_ms", "waited"),
    [
        ([SLOW_CONTROL, UNSAID], 200, "an arm is waited for no longer than the endpoint's timeout_ms, 200"),
        ([SLOW_CONTROL, QUICK], 50, "arm 'boosting' is waited for no longer than its timeout_ms, 50"),
    ],
)
def test_slow_is_less_than_any_arm_is_waited_for(arms: list[dict[str, Any]], slow_ms: int, waited: str) -> None:
    found = parse(arms=arms, slow_ms=slow_ms)
    with pytest.raises(InvalidDocument, match=f"{waited}; set slow_ms below that") as caught:
        check_experiment(found, kind="predict", output="probability", timeout_ms=200)
    assert caught.value.field == "slow_ms"
    below = parse(arms=arms, slow_ms=slow_ms - 1)
    check_experiment(below, kind="predict", output="probability", timeout_ms=200)


def test_check_experiment_refuses_probability_scores_of_numbers() -> None:
    with pytest.raises(
        InvalidDocument, match="'brier' scores probabilities, but the endpoint's models return a number"
    ):
        check_experiment(parse(), kind="predict", output="number")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"surprise": 1}, None),
        ({"name": "newline\n"}, "name"),
        ({"arms": [{"name": "UPPER", "model": "a@1"}]}, "arms[0].name"),
        ({"arms": [{"name": "a", "model": "a"}]}, "arms[0].model"),
        ({"allocation": {"kind": "coin"}}, "allocation.kind"),
        ({"traffic": 1.5}, "traffic"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
        ({"sticky": 1}, "sticky"),
        ({"planned_decisions": 99}, "planned_decisions"),
        ({"planned_decisions": 1000.5}, "planned_decisions"),
        ({"metrics": [metric(late="never")]}, "metrics[0].late"),
        ({"metrics": [metric(default=2)]}, "metrics[0].default"),
        ({"metrics": [metric(winsorise={"high": 2})]}, "metrics[0]"),
        ({"metrics": [metric(kind="numeric", winsorise={"top": 2})]}, "metrics[0].winsorise"),
    ],
)
def test_experiment_of_the_wrong_shape_names_the_field(changes: dict[str, Any], path: str | None) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        parse(**changes)
    assert split_path(caught.value)[1] == path


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [({"default": 0}, True), ({}, False), ({"default": 0, "late": "count"}, False), ({"late": "ignore"}, True)],
)
def test_metric_ignores_late_outcomes_if_it_has_counted_its_default(fields: dict[str, Any], ignored: bool) -> None:
    assert parse(metrics=[metric(**fields)]).metrics[0].ignores_late is ignored


def test_endpoint_refuses_unknown_fields() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `champ`"):
        msgspec.convert({"name": "e", "champion": "a@1", "champ": 1}, Endpoint)
