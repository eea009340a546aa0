import re
import time
from collections.abc import Callable
from pathlib import Path

from litestar import Litestar
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from models.registry import Registry
from router.http.app import application
from router.ledger.failover import LedgerState
from router.metrics import Metrics, Reading
from router.service import Service
from router.serving.running import ModelReading
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import load_small


def read(client: TestClient[Litestar]) -> dict[str, float]:
    """Return every sample by its name and labels, such as `turnout_outcomes_total{status=accepted}`."""
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_count_what_was_decided_observed_and_committed(client: TestClient[Litestar]) -> None:
    before = read(client)
    decided = [
        client.post("/v1/endpoints/delay/predict", json={"unit": f"u{number}", "inputs": INPUTS}).json()
        for number in range(5)
    ]
    rows = [{"decision_id": each["decision_id"], "metric": "late", "value": 1} for each in decided]
    client.post("/v1/outcomes", json=[*rows, rows[0], {"decision_id": "x", "metric": "late", "value": 1}])
    after = read(client)
    assert before["turnout_ledger_commit_seconds_count"] == 0
    assert after["turnout_ledger_commit_seconds_count"] == 6
    assert after["turnout_ledger_batch_rows_sum"] == 5 + 6
    assert after["turnout_decisions_total{arm=}{endpoint=delay}{experiment=}"] == 5
    assert after["turnout_outcomes_total{status=accepted}"] == 5
    assert after["turnout_outcomes_total{status=duplicate}"] == 1
    assert after["turnout_outcomes_total{status=rejected}"] == 1
    assert after["turnout_ledger_away"] == after["turnout_spool_jobs"] == after["turnout_ledger_queue_rows"] == 0


def test_fallbacks_are_counted(client: TestClient[Litestar]) -> None:
    arms = [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "nan@1"}]
    client.post("/v1/experiments", json=experiment("broken", arms=arms))
    client.post("/v1/experiments/broken/start", headers={"If-Match": "*"})
    for number in range(40):
        client.post("/v1/endpoints/delay/predict", json={"unit": f"u{number}", "inputs": INPUTS})
    after = read(client)
    failed = after["turnout_decisions_total{arm=too}{endpoint=delay}{experiment=broken}"]
    assert 0 < failed == after["turnout_fallbacks_total{endpoint=delay}"]


def test_a_control_write_reaches_the_other_process_within_two_seconds(
    client: TestClient[Litestar], settings: Settings, registry: Registry
) -> None:
    other = Service(settings, load_model=load_small)
    with TestClient(application(other, max_body_bytes=settings.max_body_bytes)) as replica:
        assert read(replica)["turnout_control_propagation_seconds_count"] == 0
        client.post("/v1/experiments", json=experiment())
        client.post("/v1/experiments/too-vs-sum/start", headers={"If-Match": "*"})
        body = {"unit": "u", "inputs": INPUTS}
        until(lambda: replica.post("/v1/endpoints/delay/predict", json=body).json()["experiment"] == "too-vs-sum")
        seen = read(replica)
    assert seen["turnout_control_propagation_seconds_count"] >= 1
    assert (
        seen["turnout_control_propagation_seconds_bucket{le=2.0}"] == seen["turnout_control_propagation_seconds_count"]
    )
    assert seen["turnout_control_age_seconds"] < 2.0
    assert registry.names()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


def test_every_metric_has_its_place_in_the_manual() -> None:
    metrics = Metrics(lambda: Reading(LedgerState(None, 0), 0, 0.0, 0, [ModelReading("m@1", 0, "closed")]))
    typed = re.findall(r"^# TYPE (\w+) ", metrics.text().decode(), re.MULTILINE)
    # The client library says of each histogram when it was made.
    names = {name for name in typed if not name.endswith("_created")}
    operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    table = set(re.findall(r"`(turnout_\w+)`", operations))
    assert len(names) > 20
    assert table == names
