"""The labelling queue: what is in it, in which order, and what leaves it."""

import json
import shutil
from pathlib import Path

import dagster as dg
import pytest

from orchestration.endpoints import flight_delay
from orchestration.endpoints.declaration import Endpoint
from orchestration.informative import most_informative
from orchestration.labelling import DISAGREEMENT, UNCERTAINTY, queue_asset
from orchestration.lake import Lake
from router.decision_id import encode
from tests.analysis.ledgers import START_MS, Ledger
from tests.metrics import BRIER

ENDPOINT = flight_delay.ENDPOINT
SERVED = [0.5, 0.1, 0.9, 0.45, 0.2, 0.0]


class Log:
    """Six decisions with these predictions, and what is known of them."""

    def __init__(self, root: Path):
        self.root, self.ledger = root, Ledger()
        experiment = self.ledger.add_experiment([BRIER])
        self.ids = [
            self.ledger.decide(experiment, number % 2, f"u{number}", START_MS + number, predictions=[served, 0.5])
            for number, served in enumerate(SERVED)
        ]

    def shadow(self, number: int, model: str, prediction: float | None) -> None:
        self.ledger.shadow_predictions.append(
            {
                "decision_id": self.ids[number],
                "model": model,
                "predictions": None if prediction is None else json.dumps([prediction, 0.5]),
                "error": None if prediction is not None else "out of order",
                "latency_ms": 1.0,
                "recorded_ms": START_MS,
            }
        )

    def queue(self, endpoint: Endpoint = ENDPOINT) -> list[tuple[int, str]]:
        shutil.rmtree(self.root / "logs", ignore_errors=True)
        self.ledger.write_lake(self.root)
        rows = most_informative(endpoint, Lake(self.root))
        numbers = {encode(key): number for number, key in enumerate(self.ids)}
        return [(numbers[row["decision_id"]], row["reason"]) for row in rows.to_dict("records")]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_without_shadows_the_least_sure_come_first_and_the_certain_not_at_all(log: Log) -> None:
    assert log.queue() == [(number, UNCERTAINTY) for number in (0, 3, 4, 1, 2)]


def test_disagreement_and_uncertainty_take_turns(log: Log) -> None:
    log.shadow(1, "forest@1", 0.8)
    log.shadow(1, "boosting@1", 0.2)
    log.shadow(2, "forest@1", 0.5)
    log.shadow(5, "forest@1", None)
    found = log.queue()
    assert found == [
        (1, DISAGREEMENT),
        (0, UNCERTAINTY),
        (2, DISAGREEMENT),
        (3, UNCERTAINTY),
        (4, UNCERTAINTY),
    ]
    first = most_informative(ENDPOINT, Lake(log.root)).iloc[0]
    assert (first["shadow"], first["shadow_prediction"], first["prediction"]) == ("forest@1", 0.8, 0.1)
    assert first["score"] == pytest.approx(0.7)
    assert json.loads(first["inputs"]) == {"distance": 1.0}


def test_labelled_decisions_leave_and_the_queue_is_capped(log: Log) -> None:
    log.ledger.observe(log.ids[0], "late", 1.0, label=True)
    log.ledger.observe(log.ids[3], "something else", 1.0)
    log.ledger.observe(log.ids[4], "late", 1.0, label=True)
    log.ledger.observe(log.ids[4], "late", None, version=1)
    assert log.queue(ENDPOINT._replace(queue=2)) == [(3, UNCERTAINTY), (4, UNCERTAINTY)]


def test_queue_is_a_table_also_while_it_is_empty(log: Log) -> None:
    for key in log.ids:
        log.ledger.observe(key, "late", 0.0, label=True)
    assert log.queue() == []
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize([queue_asset(ENDPOINT)], instance=instance, resources={"lake": Lake(log.root)})
    (event,) = made.asset_materializations_for_node("flight_delay_labelling_queue")
    assert event.metadata["dagster/row_count"].value == 0
    assert Lake(log.root).read("labelling/flight_delay").empty
