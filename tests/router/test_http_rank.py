import json
from collections import Counter
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import create_engine, select

from models.registry import Registry
from router.decision_id import Signer
from router.ledger import schema
from router.ledger.contributions import ITEMS
from router.settings import Settings
from router.verification import verify
from tests.router.small_models import add_model

Client = TestClient[Litestar]

RANK = "/v1/endpoints/choice/rank"
CANDIDATES = [
    {"id": f"flight-{number}", "distance": 100.0 * (number * 7 % 5), "carrier": "B6", "wind": float(number)}
    for number in range(5)
]
CLICK = {"name": "click", "kind": "binary", "default": 0, "window_s": 60, "direction": "increase", "role": "primary"}


def call(client: Client, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
    response = client.request(method, path, json=body, headers={"If-Match": "*", **headers})
    assert response.status_code == status, response.text
    return response.json()


@pytest.fixture
def choice(client: Client, registry: Registry) -> Client:
    """Return a client of a router with the rank endpoint `choice`."""
    add_model(registry, "backward")
    call(client, "POST", "/v1/endpoints", {"name": "choice", "kind": "rank", "champion": "sum@1"}, 201)
    return client


def start(
    client: Client, method: str = "team_draft", models: tuple[str, ...] = ("sum@1", "backward@1"), **fields: Any
) -> None:
    document = {
        "name": "mixed",
        "endpoint": "choice",
        "arms": [{"name": f"arm-{number}", "model": model} for number, model in enumerate(models)],
        "allocation": {"kind": "interleave", "method": method, "length": 4},
        "metrics": [CLICK],
        **fields,
    }
    call(client, "POST", "/v1/experiments", document, 201)
    call(client, "POST", "/v1/experiments/mixed/start")


def rank(client: Client, unit: str = "u", status: int = 200, **fields: Any) -> Any:
    return call(client, "POST", RANK, {"unit": unit, "candidates": CANDIDATES, **fields}, status)


def problems(settings: Settings) -> list[str]:
    engine = create_engine(settings.database)
    found: list[str] = []
    verify(engine, Signer(settings.secrets()), report=lambda failure: found.append(str(failure)))
    engine.dispose()
    return found


def test_candidates_come_back_in_the_order_of_their_scores(choice: Client) -> None:
    reply = rank(choice)
    assert [each["id"] for each in reply["items"]] == ["flight-2", "flight-4", "flight-1", "flight-3", "flight-0"]
    assert [each["rank"] for each in reply["items"]] == [1, 2, 3, 4, 5]
    assert [each["item"] for each in reply["items"]] == [2, 4, 1, 3, 0]
    assert (reply["model"], reply["arm"], reply["propensity"]) == ("sum@1", None, 1.0)
    stored = choice.get(f"/v1/decisions/{reply['decision_id']}").json()
    assert stored["shown"] == [2, 4, 1, 3, 0]
    assert stored["inputs"] == CANDIDATES
    assert len(stored["predictions"]) == 5


def test_a_list_is_as_long_as_it_is_asked_to_be(choice: Client) -> None:
    assert len(rank(choice, length=2)["items"]) == 2
    assert len(rank(choice, length=99)["items"]) == 5


def test_a_retry_gets_the_same_list(choice: Client) -> None:
    first = rank(choice, id="again")
    assert rank(choice, id="again") == first
    assert rank(choice, id="again", unit="other", status=409)["code"] == "conflict"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"candidates": []}, "the list of candidates is empty"),
        ({"candidates": [CANDIDATES[0], CANDIDATES[0]]}, "candidate 'flight-0' stands twice"),
        (
            {"candidates": [{"id": "a", "distance": 1.0}]},
            "candidates[0].carrier: it is missing; add it (fields here: distance (number), ",
        ),
        ({"candidates": [{**CANDIDATES[0], "id": ""}]}, 'candidates[0].id: here stands ""; give a text'),
        ({"length": 0}, "length: here stands 0; give a whole number >= 1"),
        ({"inputs": {}}, "inputs: there is no such field; remove it (fields here: unit, candidates, "),
    ],
)
def test_what_cannot_be_ranked_is_refused(choice: Client, fields: dict[str, Any], message: str) -> None:
    assert message in rank(choice, status=400, **fields)["detail"]


def test_each_kind_of_endpoint_has_its_own_call(choice: Client) -> None:
    found = call(choice, "POST", "/v1/endpoints/choice/predict", {"unit": "u", "inputs": {}}, 400)
    assert found["detail"] == "endpoint 'choice' is a rank endpoint: call .../rank instead"
    found = call(choice, "POST", "/v1/endpoints/delay/rank", {"unit": "u", "candidates": []}, 400)
    assert found["detail"] == "endpoint 'delay' is a predict endpoint: call .../predict instead"


@pytest.mark.parametrize("method", ["team_draft", "probabilistic", "optimised"])
@pytest.mark.parametrize("randomise", ["unit", "request"])
def test_interleaved_lists_follow_from_the_log(choice: Client, settings: Settings, method: str, randomise: str) -> None:
    start(choice, method, randomise=randomise, holdout=0.1)
    replies = [rank(choice, f"u{number}") for number in range(60)]
    arms = Counter(reply["arm"] for reply in replies)
    assert set(arms) == {"interleaved", "holdout"}
    mixed = [reply for reply in replies if reply["arm"] == "interleaved"]
    assert {reply["model"] for reply in mixed} == {"sum@1+backward@1"}
    assert {len(reply["items"]) for reply in mixed} == {4}
    assert len({tuple(each["id"] for each in reply["items"]) for reply in mixed}) > 1
    assert problems(settings) == []


def test_a_unit_gets_the_same_list_again_and_a_request_another(choice: Client) -> None:
    start(choice)
    lists = {tuple(each["id"] for each in rank(choice, "same")["items"]) for _ in range(10)}
    assert len(lists) == 1


def test_three_rankings_are_mixed(choice: Client, settings: Settings, registry: Registry) -> None:
    add_model(registry, "sum-too")
    start(choice, models=("sum@1", "backward@1", "sum-too@1"))
    reply = rank(choice)
    teams = choice.get(f"/v1/decisions/{reply['decision_id']}").json()["teams"]
    assert set(teams) <= {"arm-0", "arm-1", "arm-2", None}
    assert problems(settings) == []


def test_a_click_is_credited_to_the_arm_whose_pick_it_was(choice: Client, settings: Settings) -> None:
    start(choice)
    credited: Counter[str | None] = Counter()
    for number in range(20):
        reply = rank(choice, f"u{number}")
        stored = choice.get(f"/v1/decisions/{reply['decision_id']}").json()
        place = number % 4
        credited[stored["teams"][place]] += 1
        click = {"decision_id": reply["decision_id"], "metric": "click", "value": 1, "item": stored["shown"][place]}
        assert call(choice, "POST", "/v1/outcomes", click)["status"] == "accepted"
    unseen = {"decision_id": reply["decision_id"], "metric": "click", "value": 1}
    [missing] = set(range(5)) - set(stored["shown"])
    refused = call(choice, "POST", "/v1/outcomes", {**unseen, "item": missing}, 400)
    assert refused["detail"].startswith(f"item {missing} was not shown, so that no 'click' can have come of it; name")
    found = call(choice, "POST", "/v1/outcomes", {**unseen, "item": 99}, 400)
    assert found["detail"] == "item 99 is out of range: the decision has 5 candidates, 0 to 4"
    assert (refused["field"], found["field"]) == ("item", "item")
    engine = create_engine(settings.database)
    table = schema.statistics
    with engine.connect() as connection:
        rows = connection.execute(select(table.c.arm, table.c.metric, table.c.count, table.c.sum)).all()
    engine.dispose()
    found = {arm: count for arm, metric, count, _ in rows if metric == "click"}
    assert found == {0: credited["arm-0"], 1: credited["arm-1"]}
    assert [(arm, count, items) for arm, metric, count, items in rows if metric == ITEMS] == [(254, 20, 80.0)]
    assert problems(settings) == []


@pytest.mark.parametrize("interleaved", [True, False])
def test_an_outcome_of_a_list_has_to_name_its_item(choice: Client, interleaved: bool) -> None:
    if interleaved:
        start(choice)
    silent = {"decision_id": rank(choice)["decision_id"], "metric": "click", "value": 1}
    found = call(choice, "POST", "/v1/outcomes", silent, 400)
    assert found["field"] == "item"
    assert found["detail"].startswith("item is missing: the decision is a list, so name a candidate by the `item`")
    [receipt] = call(choice, "POST", "/v1/outcomes", [silent])["receipts"]
    assert receipt == {"status": "rejected", "reason": found["detail"], "field": "item"}
    assert choice.get(f"/v1/decisions/{silent['decision_id']}").json()["outcomes"] == []


@pytest.mark.parametrize("counted", [False, True])
def test_a_click_on_what_was_not_shown_is_found_if_it_counts(choice: Client, settings: Settings, counted: bool) -> None:
    start(choice)
    reply = rank(choice)
    seen = [each["item"] for each in reply["items"]]
    [missing] = set(range(5)) - set(seen)
    click = {"decision_id": reply["decision_id"], "metric": "click", "value": 1, "item": seen[0]}
    call(choice, "POST", "/v1/outcomes", click)
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(schema.outcomes.update().values(item=missing, counted=counted))
        if not counted:
            connection.execute(schema.statistics.delete().where(schema.statistics.c.metric == "click"))
    engine.dispose()
    found = [failure for failure in problems(settings) if failure.startswith("outcomes")]
    assert len(found) == counted
    assert all("which were shown" in failure for failure in found)


def test_the_champion_ranks_alone_when_an_arm_fails(choice: Client, settings: Settings, registry: Registry) -> None:
    add_model(registry, "error")
    start(choice, models=("backward@1", "error@1"))
    replies = [rank(choice, f"u{number}") for number in range(8)]
    assert "fallback" not in replies[0]
    assert replies[-1]["served_model"] == "sum@1"
    assert replies[-1]["fallback"] == "arm 'error@1': RuntimeError: out of order"
    assert [each["item"] for each in replies[-1]["items"]] == [2, 4, 1, 3, 0]
    assert choice.get(f"/v1/decisions/{replies[-1]['decision_id']}").json()["teams"] is None
    assert problems(settings) == []


def test_a_forced_arm_ranks_alone(choice: Client, settings: Settings) -> None:
    start(choice)
    reply = call(choice, "POST", RANK, {"unit": "u", "candidates": CANDIDATES}, 200, **{"X-Turnout-Arm": "arm-1"})
    assert (reply["arm"], reply["epoch"], reply["model"]) == ("arm-1", 0, "backward@1")
    assert [each["item"] for each in reply["items"]] == [0, 3, 1, 4, 2]
    assert problems(settings) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("shown", "[0, 1, 2]"),
        ("shown", "[]"),
        ("shown", "[9]"),
        ("shown", "nonsense"),
        ("shown", None),
        ("draw", None),
        ("draw", '{"scores": [[1.0], [2.0]], "teams": [0], "credits": [[1.0, 0.0]]}'),
        ("unit", "another-unit-of-another-list"),
    ],
)
def test_an_altered_list_is_found(choice: Client, settings: Settings, column: str, value: str | None) -> None:
    start(choice)
    for number in range(8):
        rank(choice, f"u{number}")
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(schema.decisions.update().values({column: value}))
    engine.dispose()
    found = problems(settings)
    assert any(failure.startswith("decisions ") for failure in found), found


def test_only_rank_endpoints_interleave(choice: Client) -> None:
    document = {
        "name": "mixed",
        "endpoint": "delay",
        "arms": [{"name": "a", "model": "sum@1"}, {"name": "b", "model": "sum-too@1"}],
        "allocation": {"kind": "interleave"},
        "metrics": [CLICK],
    }
    found = call(choice, "POST", "/v1/experiments", document, 400)
    assert found["detail"] == "only a rank endpoint interleaves; 'delay' is a predict endpoint"
    assert json.dumps(found["field"]) == '"allocation"'
