import random
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import create_engine

from models.registry import Registry
from router.allocation.bandit import bandit_epoch
from router.bandits import what_is_known
from router.control import Control
from router.decision_id import Signer
from router.documents import Endpoint, Experiment
from router.http.app import application
from router.ledger import schema
from router.ledger.control import ControlTables
from router.ledger.database import open_database, upgrade
from router.ledger.rollouts import RolloutTables
from router.service import Service
from router.settings import Settings
from router.verification import verify
from tests.router.documents import INPUTS
from tests.router.small_models import add_model, load_small

Client = TestClient[Litestar]

CLICK = {"name": "click", "kind": "binary", "direction": "increase", "role": "primary"}
THOMPSON = {"kind": "thompson", "metric": "click", "min_matured": 20, "update_every_s": 0.1}
CONTEXTUAL = {
    **THOMPSON,
    "kind": "contextual",
    "features": [
        {"kind": "category", "name": "origin", "values": ["JFK", "LGA"]},
        {"kind": "number", "name": "hour", "low": 0, "high": 24},
    ],
}


def call(client: Client, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    response = client.request(method, f"/v1/{path}", json=body, headers={"If-Match": "*"})
    assert response.status_code == status, response.text
    return response.json()


def router_of(settings: Settings) -> Client:
    return TestClient(application(Service(settings, load_model=load_small), max_body_bytes=settings.max_body_bytes))


def document(allocation: dict[str, Any] = THOMPSON, **fields: Any) -> dict[str, Any]:
    return {
        "name": "bandit",
        "endpoint": "delay",
        "arms": [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "sum-too@1"}],
        "allocation": allocation,
        "metrics": [CLICK],
        **fields,
    }


def start(client: Client, *args: Any, **fields: Any) -> None:
    call(client, "POST", "experiments", document(*args, **fields), 201)
    call(client, "POST", "experiments/bandit/start")


def decide(client: Client, unit: str = "u", **context: Any) -> dict[str, Any]:
    body = {"unit": unit, "inputs": INPUTS, "context": context}
    reply: dict[str, Any] = call(client, "POST", "endpoints/delay/predict", body)
    return reply


def click(client: Client, replies: list[dict[str, Any]], clicked: list[bool]) -> None:
    rows = [
        {"decision_id": reply["decision_id"], "metric": "click", "value": value}
        for reply, value in zip(replies, clicked, strict=True)
    ]
    assert call(client, "POST", "outcomes", rows)["accepted"] == len(rows)


def allocation(client: Client) -> list[dict[str, Any]]:
    epochs: list[dict[str, Any]] = call(client, "GET", "experiments/bandit/allocation")
    return epochs


def newest_after(client: Client, number: int) -> dict[str, Any]:
    """Return the newest epoch, once there is one after this one."""
    ends = time.monotonic() + 20
    while (newest := allocation(client)[-1])["epoch"] <= number:
        assert time.monotonic() < ends, newest
        time.sleep(0.05)
    return newest


def problems(settings: Settings) -> list[str]:
    engine = create_engine(settings.database)
    found: list[str] = []
    verify(engine, Signer(settings.secrets()), report=lambda failure: found.append(str(failure)))
    engine.dispose()
    return found


def test_traffic_goes_where_the_clicks_are(client: Client, settings: Settings) -> None:
    start(client, holdout=0.1)
    [first] = allocation(client)
    assert first["probabilities"] == {"control": 0.45, "too": 0.45, "holdout": 0.1}
    replies = [decide(client, f"u{number}") for number in range(90)]
    click(client, replies, [reply["arm"] == "too" for reply in replies])
    newest = newest_after(client, 1)
    # The floor of 0.05, in the share that is not held out.
    assert newest["probabilities"]["control"] == pytest.approx(0.045, abs=0.0005)
    assert newest["probabilities"]["holdout"] == 0.1
    assert newest["basis"]["evidence"][1][0] == sum(reply["arm"] == "too" for reply in replies)
    later = Counter(decide(client, f"v{number}")["arm"] for number in range(60))
    assert later["too"] > 40
    assert problems(settings) == []


def test_requests_are_drawn_one_by_one_unless_said_otherwise(client: Client) -> None:
    start(client)
    assert call(client, "GET", "experiments/bandit")["document"]["randomise"] == "request"
    assert {decide(client)["arm"] for _ in range(40)} == {"control", "too"}


def test_units_keep_their_arm_as_far_as_the_shares_allow(client: Client, settings: Settings) -> None:
    start(client, randomise="unit")
    replies = {f"u{number}": decide(client, f"u{number}") for number in range(80)}
    click(client, list(replies.values()), [reply["arm"] == "too" for reply in replies.values()])
    newest_after(client, 1)
    later = {unit: decide(client, unit)["arm"] for unit in replies}
    assert all(later[unit] == "too" for unit, reply in replies.items() if reply["arm"] == "too")
    assert problems(settings) == []


def test_pending_decisions_are_no_failures(client: Client) -> None:
    start(client, metrics=[{**CLICK, "default": 0, "window_s": 3600}])
    for number in range(60):
        decide(client, f"u{number}")
    time.sleep(0.5)
    assert [each["epoch"] for each in allocation(client)] == [1]


def test_an_arm_that_comes_later_starts_from_nothing_and_gets_an_equal_share(
    client: Client, settings: Settings
) -> None:
    start(client)
    replies = [decide(client, f"u{number}") for number in range(90)]
    click(client, replies, [reply["arm"] == "too" for reply in replies])
    before = newest_after(client, 1)
    arms = [*document()["arms"], {"name": "late", "model": "sum@1"}]
    call(client, "PUT", "experiments/bandit", document(arms=arms))
    added = allocation(client)[-1]
    assert added["epoch"] == before["epoch"] + 1
    assert added["probabilities"]["late"] == pytest.approx(0.05 + 0.85 / 3, abs=0.0002)
    assert added["probabilities"]["too"] > added["probabilities"]["control"]
    assert added["basis"]["evidence"][2][:2] == [0.0, 0.0]
    retired = [arms[0], {**arms[1], "retired": True}, arms[2]]
    call(client, "PUT", "experiments/bandit", document(arms=retired))
    assert allocation(client)[-1]["probabilities"]["too"] == 0.0
    assert {decide(client)["arm"] for _ in range(40)} == {"control", "late"}
    assert problems(settings) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allocation": {"kind": "split", "weights": {"control": 0.5, "too": 0.5}}}, "how it allocates"),
        ({"arms": [{"name": "control", "model": "sum@1"}, {"name": "other", "model": "sum-too@1"}]}, "its arms keep"),
        ({"metrics": [{**CLICK, "window_s": 5}]}, "'metrics' can no longer change"),
        (
            {
                "allocation": {**THOMPSON, "metric": "sale"},
                "metrics": [CLICK, {**CLICK, "name": "sale", "role": "secondary"}],
            },
            "keeps its metric",
        ),
    ],
)
def test_what_decisions_were_about_cannot_change(client: Client, changes: dict[str, Any], message: str) -> None:
    start(client)
    assert message in call(client, "PUT", "experiments/bandit", document(**changes), 409)["detail"]


@pytest.mark.parametrize(
    ("allocation", "field"),
    [
        ({**THOMPSON, "metric": "sale"}, "allocation.metric"),
        ({**THOMPSON, "floor": 0.5}, "allocation.floor"),
        ({**THOMPSON, "floor": 0.4, "control_share": 0.7}, "allocation.floor"),
        ({**THOMPSON, "update_every_s": 0}, "allocation.update_every_s"),
        ({**CONTEXTUAL, "features": []}, "allocation.features"),
        (
            {**CONTEXTUAL, "features": [{"kind": "number", "name": "a", "low": 1, "high": 1}]},
            "allocation.features[0].low",
        ),
        (
            {**CONTEXTUAL, "features": [{"kind": "category", "name": "a", "values": ["x", "x"]}]},
            "allocation.features[0].values",
        ),
    ],
)
def test_a_bandit_that_cannot_work_is_refused(client: Client, allocation: dict[str, Any], field: str) -> None:
    assert call(client, "POST", "experiments", document(allocation), 400)["field"] == field


def test_the_context_decides(client: Client, settings: Settings, registry: Registry) -> None:
    """Each arm is the better one at one airport."""
    add_model(registry, "sum-three")
    arms = [*document()["arms"], {"name": "three", "model": "sum-three@1"}]
    start(client, CONTEXTUAL, arms=arms, holdout=0.1)
    chance = random.Random(5)
    best = {"JFK": "control", "LGA": "too"}
    for _ in range(3):
        replies, clicked = [], []
        for number in range(100):
            origin = chance.choice(["JFK", "LGA"])
            reply = decide(client, f"u{number}", origin=origin, hour=chance.uniform(0, 24))
            replies.append(reply)
            clicked.append(chance.random() < (0.9 if reply["arm"] == best[origin] else 0.2))
        number = allocation(client)[-1]["epoch"]
        click(client, replies, clicked)
        newest_after(client, number)
    for origin, arm in best.items():
        drawn = [decide(client, f"v{number}", origin=origin, hour=12.0) for number in range(50)]
        assert Counter(reply["arm"] for reply in drawn)[arm] > 30
        shares = {reply["arm"]: reply["propensity"] for reply in drawn}
        assert shares[arm] > 0.7
    assert decide(client, "w")["propensity"] > 0
    assert problems(settings) == []
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(schema.decisions.update().values(context='{"origin":"LGA","hour":1.0}'))
    engine.dispose()
    found = problems(settings)
    assert any(": propensity: " in failure for failure in found)


@pytest.mark.parametrize(
    ("context", "field", "message"),
    [
        ({"origin": "JFK", "hour": "noon"}, "context.hour", 'here stands "noon"; give a number, or leave it out'),
        ({"hour": True}, "context.hour", "here stands true; give a number, or leave it out"),
        ({"origin": 5}, "context.origin", 'here stands 5; give a text, such as "JFK", or leave it out'),
    ],
)
def test_a_context_of_another_type_is_refused(
    client: Client, settings: Settings, context: dict[str, Any], field: str, message: str
) -> None:
    start(client, CONTEXTUAL)
    found = call(client, "POST", "endpoints/delay/predict", {"unit": "u", "inputs": INPUTS, "context": context}, 400)
    assert (found["field"], found["detail"]) == (field, f"{field}: {message}")
    assert decide(client, origin="elsewhere", other=5)["experiment"] == "bandit"
    assert problems(settings) == []


def test_contexts_of_silent_decisions_count_where_there_is_a_default(client: Client, settings: Settings) -> None:
    start(client, CONTEXTUAL, metrics=[{**CLICK, "default": 0, "window_s": 60}])
    for number in range(10):
        decide(client, f"u{number}", origin="JFK", hour=6.0)
    engine = create_engine(settings.database)
    with engine.connect() as connection:
        rows = connection.execute(schema.regressions.select()).mappings().all()
    engine.dispose()
    assert sum(row["count"] for row in rows) == 10
    assert {row["metric"] for row in rows} == {"decisions/items"}
    assert problems(settings) == []


@pytest.mark.parametrize("changes", [{"count": 7}, {"sums": "[1.0]"}, {"sums": "nonsense"}])
def test_altered_sums_of_contexts_are_found(client: Client, settings: Settings, changes: dict[str, Any]) -> None:
    start(client, CONTEXTUAL)
    replies = [decide(client, f"u{number}", origin="LGA", hour=1.0 + number) for number in range(10)]
    click(client, replies, [True, False] * 5)
    correction = {"decision_id": replies[0]["decision_id"], "metric": "click", "value": 0, "version": 1}
    assert call(client, "POST", "outcomes", correction)["status"] == "accepted"
    assert problems(settings) == []
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(schema.regressions.update().values(**changes))
    engine.dispose()
    assert any(failure.startswith("regressions ") for failure in problems(settings))


def test_an_experiment_whose_newest_epoch_cannot_be_read_stops_no_other(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    with router_of(settings) as client:
        call(client, "POST", "endpoints", {"name": "delay", "champion": "sum@1"}, 201)
        start(client, CONTEXTUAL, traffic=0.5)
        even = {"kind": "split", "weights": {"control": 0.5, "too": 0.5}}
        call(client, "POST", "experiments", document(even, name="healthy"), 201)
        call(client, "POST", "experiments/healthy/start")
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        damaged = schema.epochs.update().where(schema.epochs.c.basis.isnot(None)).values(basis='{"at_ms":null}')
        connection.execute(damaged)
    engine.dispose()
    with router_of(settings) as client:
        assert {decide(client, f"u{number}", hour=1.0)["experiment"] for number in range(20)} == {"healthy"}
        call(client, "POST", "experiments/bandit/conclude")


def test_epochs_are_read_page_by_page(client: Client) -> None:
    start(client, {"kind": "split", "weights": {"control": 0.5, "too": 0.5}})
    for number in range(1, 5):
        weights = {"control": 0.5 + number / 10, "too": 0.5 - number / 10}
        call(client, "PUT", "experiments/bandit", document({"kind": "split", "weights": weights}))
    newest = call(client, "GET", "experiments/bandit/allocation?limit=2")
    assert [each["epoch"] for each in newest] == [4, 5]
    assert [each["epoch"] for each in call(client, "GET", "experiments/bandit/allocation?limit=2&before=4")] == [2, 3]
    assert len(allocation(client)) == 5


def test_settings_change_though_an_epoch_is_published_at_that_moment(settings: Settings, registry: Registry) -> None:
    engine = open_database(settings.database)
    upgrade(engine)
    tables = ControlTables(engine)
    assert registry.names()
    meanwhile: list[bool] = []

    def clock() -> int:
        if meanwhile == [False]:
            # Another replica is faster, once the document has been read.
            meanwhile.append(True)
            record = tables.experiment("bandit")
            known = what_is_known(tables, record, 1)
            assert tables.publish(record, bandit_epoch(record.document, record.epoch, known, 1), "new evidence", 1)
        return 1_700_000_000_000

    control = Control(tables, RolloutTables(engine), registry, clock)
    control.create_endpoint(msgspec.convert({"name": "delay", "champion": "sum@1"}, Endpoint), actor="a")
    control.create_experiment(msgspec.convert(document(), Experiment), actor="a")
    control.start("bandit", "*", actor="a")
    meanwhile.append(False)
    changed = msgspec.convert(document({**THOMPSON, "floor": 0.2}), Experiment)
    record = control.replace_experiment(changed, "*", actor="a")
    assert meanwhile == [False, True]
    assert record.epoch is not None
    assert record.epoch.number == 3
    assert "new settings" in [each.reason for each in control.epochs("bandit", 10)]
    engine.dispose()
