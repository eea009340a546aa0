"""Which decisions are most worth a label: where shadow and served model disagree, and where nobody is sure.

Whoever finds out what was right posts it as an outcome of the decision, as any label; then the decision is not in the
queue any more.
"""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from orchestration.automation.conditions import REPORT
from orchestration.automation.freshness import RESULTS
from orchestration.datasets.tables import markdown_table
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake
from orchestration.logs import logged_traffic

DISAGREEMENT = "disagreement"
UNCERTAINTY = "uncertainty"
_SHOWN = 20


def queue_asset(endpoint: Endpoint) -> dg.AssetsDefinition:
    """The asset with the queue, as the table `labelling/<endpoint>` of the lake."""

    @dg.asset(
        name=f"{endpoint.key}_labelling_queue",
        description=f"At most {endpoint.queue} decisions of the newest {endpoint.drift.days} days of logs without the "
        f"label `{endpoint.label}`, most informative first; of a list of inputs the first one.",
        group_name="results",
        kinds={"duckdb", "deltalake"},
        deps=[logged_traffic],
        automation_condition=REPORT,
        freshness_policy=RESULTS,
    )
    def queue(lake: dg.ResourceParam[Lake]) -> Iterator[dg.MaterializeResult[None]]:
        from orchestration.informative import most_informative  # seconds, which loading should not take

        rows = most_informative(endpoint, lake)
        version = lake.write_if_changed(f"labelling/{endpoint.key}", rows)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version.content_hash),
            metadata={
                "dagster/row_count": len(rows),
                **{reason: int((rows["reason"] == reason).sum()) for reason in (DISAGREEMENT, UNCERTAINTY)},
                "first_rows": dg.MetadataValue.md(markdown_table(_shown(rows))),
            },
        )

    return queue


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    first = rows.head(_SHOWN).drop(columns=["inputs", "decided_ms"]).astype(object)
    return first.where(first.notna(), "").map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
