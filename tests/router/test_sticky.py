import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import create_engine, make_url, select

from models.registry import Registry
from router.assignment.epochs import HOLDOUT, Epoch, fresh
from router.http.app import application
from router.ledger import schema
from router.ledger.records import AssignmentRow
from router.service import Service
from router.serving.assign import Assignment, draw
from router.serving.routes import ExperimentRoute
from router.serving.sticky import StickyAssignments
from router.settings import Settings
from tests.databases import BACKENDS, database
from tests.proxies import proxy
from tests.router.documents import INPUTS, experiment
from tests.router.routes import experiment as route
from tests.router.small_models import load_small

Client = TestClient[Litestar]

UNITS = [f"user-{number}" for number in range(30)]


class Store:
    """First assignments in a dictionary; while `away` it answers as the spool does, which knows no earlier ones."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], AssignmentRow] = {}
        self.asked = 0
        self.away = False

    async def assign(self, row: AssignmentRow) -> AssignmentRow:
        """Return the row that stands."""
        self.asked += 1
        if self.away:
            return row
        return AssignmentRow(*self.rows.setdefault(row[:2], row))


def only(number: int, epoch: int) -> ExperimentRoute:
    """Return the route of an experiment at an epoch that gives everybody this number."""
    return route(sticky=True, epoch=Epoch(epoch, fresh({number: 10_000})))


def first(sticky: StickyAssignments, experiment: ExperimentRoute, unit: str = "u") -> Assignment:
    return asyncio.run(sticky.first(draw(experiment, unit, {}), unit))


def test_first_assignment_keeps_its_epoch_arm_and_propensity() -> None:
    sticky = StickyAssignments(Store(), lambda: 7)
    before = route(sticky=True, weights=(0.6, 0.4))
    drawn = draw(before, "u", {})
    assert first(sticky, before) == drawn
    after = only(1 - drawn.number, epoch=2)
    kept = first(sticky, after)
    assert kept[1:] == drawn[1:]
    # Its model is the running route's: a snapshot of routes must not live on in memory.
    assert kept.experiment is after


def test_first_assignment_to_the_holdout_stands_as_well() -> None:
    sticky = StickyAssignments(Store(), lambda: 7)
    first(sticky, only(HOLDOUT, epoch=1))
    assert first(sticky, only(0, epoch=2)).arm is None


def test_first_assignments_are_stored_once_and_then_remembered() -> None:
    store = Store()
    sticky = StickyAssignments(store, lambda: 7)
    for _ in range(3):
        first(sticky, only(0, epoch=4))
    assert store.rows == {(1, "u"): AssignmentRow(1, "u", 4, 0, 10_000, 7)}
    assert store.asked == 1


def test_first_assignment_of_another_process_wins() -> None:
    store = Store()
    first(StickyAssignments(store, lambda: 7), only(0, epoch=1))
    other = StickyAssignments(store, lambda: 8)
    assert first(other, only(1, epoch=2))[1:] == (1, 0, 10_000)


def test_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    store = Store()
    sticky = StickyAssignments(store, lambda: 7, remembered=2)
    for unit in ("a", "b", "a", "c", "a"):
        first(sticky, only(0, epoch=1), unit)
    assert store.asked == 3
    assert first(sticky, only(1, epoch=2), "b")[1:] == (1, 0, 10_000)
    assert store.asked == 4


def test_units_of_one_name_in_two_experiments_are_two() -> None:
    sticky = StickyAssignments(Store(), lambda: 7)
    first(sticky, only(0, epoch=1))
    assert first(sticky, only(1, epoch=1)._replace(id=2)).number == 1


def test_what_was_only_spooled_is_not_remembered() -> None:
    store = Store()
    store.rows[1, "u"] = AssignmentRow(1, "u", 1, 0, 5000, 7)
    store.away = True
    sticky = StickyAssignments(store, lambda: 8)
    assert first(sticky, only(1, epoch=2))[1:] == (2, 1, 10_000)
    store.away = False
    assert first(sticky, only(1, epoch=2))[1:] == (1, 0, 5000)


class House:
    """A database and the routers over it."""

    def __init__(self, url: str, registry: Registry, folder: Path) -> None:
        secret = "a secret of enough length"
        self.settings = Settings(database=url, registry=registry.root, spool=folder / "spool", secret=secret)

    @contextmanager
    def router(self) -> Iterator[Client]:
        """Run a router process's worth of memory over the database."""
        service = Service(self.settings, load_model=load_small)
        with TestClient(application(service, max_body_bytes=self.settings.max_body_bytes)) as client:
            yield client

    def stored(self) -> dict[str, tuple[int, int, int]]:
        """Return epoch, arm and slots by unit."""
        engine = create_engine(self.settings.database.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as connection:
            rows = [AssignmentRow(*row) for row in connection.execute(select(schema.assignments))]
        engine.dispose()
        return {row.unit: (row.epoch, row.arm, row.slots) for row in rows}


@pytest.fixture(params=BACKENDS)
def house(request: pytest.FixtureRequest, tmp_path: Path, registry: Registry) -> Iterator[House]:
    """A ledger with endpoint `delay`, in either database."""
    with database(request.param, tmp_path) as url:
        house = House(url, registry, tmp_path)
        with house.router() as client:
            send(client, "POST", "endpoints", {"name": "delay", "champion": "sum@1"})
        yield house


def send(client: Client, method: str, path: str, body: Any = None) -> Any:
    response = client.request(method, f"/v1/{path}", json=body, headers={"If-Match": "*"})
    assert response.is_success, response.text
    return response.json()


def start(client: Client, **fields: Any) -> None:
    send(client, "POST", "experiments", experiment(**fields))
    send(client, "POST", "experiments/too-vs-sum/start")


def arms(client: Client, units: list[str] = UNITS, **fields: Any) -> dict[str, tuple[Any, ...]]:
    replies = {
        unit: send(client, "POST", "endpoints/delay/predict", {"unit": unit, "inputs": INPUTS, **fields})
        for unit in units
    }
    for reply in replies.values():
        stored = send(client, "GET", f"decisions/{reply['decision_id']}")
        assert [stored[name] for name in ("experiment", "epoch", "arm", "propensity", "model")] == [
            reply[name] for name in ("experiment", "epoch", "arm", "propensity", "model")
        ]
    return {unit: (reply["arm"], reply["epoch"], reply["propensity"]) for unit, reply in replies.items()}


def weights(control: float, too: float) -> dict[str, Any]:
    return {"allocation": {"kind": "split", "weights": {"control": control, "too": too}}}


def test_sticky_units_keep_their_first_assignment_over_reweightings_pauses_and_processes(house: House) -> None:
    with house.router() as client:
        start(client, sticky=True, holdout=0.2)
        before = arms(client)
        assert {arm for arm, _, _ in before.values()} == {"control", "too", "holdout"}
        assert {(arm, propensity) for arm, _, propensity in before.values()} == {
            ("control", 0.4),
            ("too", 0.4),
            ("holdout", 0.2),
        }
        send(client, "PUT", "experiments/too-vs-sum", experiment(sticky=True, **weights(0.0, 1.0)))
        assert arms(client) == before
        send(client, "POST", "experiments/too-vs-sum/pause")
        assert {arm for arm, _, _ in arms(client).values()} == {None}
        send(client, "POST", "experiments/too-vs-sum/resume")
        assert arms(client) == before
    with house.router() as client:
        assert arms(client) == before
        assert arms(client, ["new-1", "new-2"]) == dict.fromkeys(["new-1", "new-2"], ("too", 2, 1.0))
    assert house.stored() == {
        **{
            unit: (epoch, {"control": 0, "too": 1, "holdout": HOLDOUT}[arm], round(10_000 * propensity))
            for unit, (arm, epoch, propensity) in before.items()
        },
        "new-1": (2, 1, 10_000),
        "new-2": (2, 1, 10_000),
    }


def test_two_routers_agree_on_the_first_assignment(house: House) -> None:
    with house.router() as one:
        start(one, sticky=True)
        with house.router() as other:
            before = arms(one)
            send(one, "PUT", "experiments/too-vs-sum", experiment(sticky=True, **weights(0.9, 0.1)))
            # Whether the other one has read the new weights by now or not, it finds the same assignments.
            assert arms(other) == before


def test_without_stickiness_nothing_is_stored_and_units_move(house: House) -> None:
    with house.router() as client:
        start(client)
        arms(client)
        send(client, "PUT", "experiments/too-vs-sum", experiment(**weights(0.0, 1.0)))
        assert set(arms(client).values()) == {("too", 2, 1.0)}
    assert house.stored() == {}


def test_traffic_and_audience_decide_about_sticky_units_too_and_give_the_old_arm_back(house: House) -> None:
    audience = [{"attribute": "origin", "op": "eq", "value": "JFK"}]
    with house.router() as client:
        start(client, sticky=True, audience=audience)
        before = arms(client, context={"origin": "JFK"})
        assert {arm for arm, _, _ in arms(client, context={"origin": "EWR"}).values()} == {None}
        half = experiment(sticky=True, audience=audience, traffic=0.5, **weights(0.1, 0.9))
        send(client, "PUT", "experiments/too-vs-sum", half)
        left = arms(client, context={"origin": "JFK"})
        outside = {unit for unit, assignment in left.items() if assignment[0] is None}
        assert 0 < len(outside) < len(UNITS)
        assert all(left[unit] == before[unit] for unit in UNITS if unit not in outside)
        send(client, "PUT", "experiments/too-vs-sum", {**half, "traffic": 1.0})
        assert arms(client, context={"origin": "JFK"}) == before


def test_sticky_units_while_the_database_is_away(tmp_path: Path, registry: Registry) -> None:
    with database("postgresql", tmp_path) as url:
        address = make_url(url)
        house = House(url, registry, tmp_path)
        with proxy((address.host or "", address.port or 5432)) as line, house.router() as direct:
            send(direct, "POST", "endpoints", {"name": "delay", "champion": "sum@1"})
            start(direct, sticky=True, **weights(1.0, 0.0))
            behind = address.set(port=line.port).render_as_string(hide_password=False)
            through = House(behind, registry, tmp_path)
            arms(direct, ["theirs"])
            with through.router() as client:
                arms(client, ["ours"])
                send(client, "PUT", "experiments/too-vs-sum", experiment(sticky=True, **weights(0.0, 1.0)))
                line.cut()
                # What this process remembers holds; the rest is drawn, and recorded, from the epoch it has.
                assert unread_arms(client, ["ours", "theirs", "new", "new"]) == [
                    ("control", 1),
                    ("too", 2),
                    ("too", 2),
                    ("too", 2),
                ]
                line.restore()
                until(lambda: "new" in house.stored())
                # What the database knew all along stands again.
                assert unread_arms(client, ["ours", "theirs", "new"]) == [("control", 1), ("control", 1), ("too", 2)]


def unread_arms(client: Client, units: list[str]) -> list[tuple[str, int]]:
    replies = [send(client, "POST", "endpoints/delay/predict", {"unit": unit, "inputs": INPUTS}) for unit in units]
    return [(reply["arm"], reply["epoch"]) for reply in replies]


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)
