"""The stock schemathesis tool over the whole OpenAPI document, with keys on."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.registry import Registry
from router.client import Turnout
from router.settings import Settings
from tests.router.documents import INPUTS, experiment
from tests.router.keyrings import make_key
from tests.router.servers import serving

_CONFIGURATION = """
[generation]
max-examples = 20
deterministic = true

[checks]
# A request of the right shape can still contradict what is stored: weights that sum to 2, an id that nobody signed.
positive_data_acceptance.enabled = false
# Litestar answers OPTIONS from the first handler of a path, and forgets the methods of the others.
allow_header_conformance.enabled = false
# Keys are not the owners of what they make: all with the scope see all.
object_level_authorization.enabled = false
# A stale or odd revision is 412, a missing one 428 (RFC 6585), which schemathesis does not expect.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 422, 428]
missing_required_header.expected-statuses = [400, 401, 428]

# What exists, so that not only refusals are looked at.
[[operations]]
include-name = "POST /v1/endpoints/{endpoint}/predict"
parameters = { "path.endpoint" = "delay" }

[[operations]]
include-name = "GET /v1/decisions/{decision_id}"
parameters = { "path.decision_id" = "DECISION_ID" }

[[operations]]
include-name = "GET /v1/models/{reference}"
parameters = { "path.reference" = "sum@1" }

[[operations]]
include-path-regex = "/v1/experiments/.name./(pause|resume)"
parameters = { "path.name" = "too-vs-sum", "header.If-Match" = "*" }
"""


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(settings: Settings, registry: Registry, tmp_path: Path) -> None:
    assert registry.names()
    configuration = tmp_path / "schemathesis.toml"
    _, key = make_key(settings.database, "admin")
    with serving(settings) as url:
        with Turnout(url, api_key=key) as client:
            client.create_endpoint({"name": "delay", "champion": "sum@1"})
            client.create_experiment(experiment())
            client.start("too-vs-sum")
            decision_id = client.predict("delay", unit="u", inputs=INPUTS)["decision_id"]
        configuration.write_text(_CONFIGURATION.replace("DECISION_ID", decision_id))
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                f"--config-file={configuration}",
                "run",
                f"{url}/schema/openapi.json",
                f"--header=Authorization: Bearer {key}",
                "--continue-on-failure",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "Operations:       34 selected / 34 total" in done.stdout
