"""Makes an endpoint's drift asset: does live traffic still look like what its champion learned from?"""

from collections.abc import Iterator, Sequence

import dagster as dg

from models import Registry
from orchestration.automation.conditions import REPORT
from orchestration.automation.freshness import RESULTS
from orchestration.candidates.champion import champion_of
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake
from orchestration.logs import logged_traffic
from orchestration.rollouts.router import Router

CHECK = "no_drift"


def drift_name(endpoint: Endpoint) -> str:
    """Name of the asset."""
    return f"{endpoint.key}_drift"


def drift_asset(endpoint: Endpoint) -> dg.AssetsDefinition:
    """The asset, with a check that names what drifted and blocks nothing."""
    name = drift_name(endpoint)

    @dg.asset(
        name=name,
        description=f"Every feature, prediction and label of `{endpoint.name}`: the newest {endpoint.drift.days} days "
        "of logs beside the dataset version that the champion learned from, one row per unit.",
        group_name="results",
        kinds={"duckdb", "altair"},
        deps=[logged_traffic, endpoint.data.train.name],
        automation_condition=REPORT,
        freshness_policy=RESULTS,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=name,
                description="Nothing drifted: at a false-discovery rate of 5 %, and by a stability index that is well "
                "above what chance makes of so many rows.",
            )
        ],
    )
    def drift(
        lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry], router: dg.ResourceParam[Router]
    ) -> Iterator[dg.MaterializeResult[None]]:
        champion = champion_of(endpoint, router, registry)
        if champion is None:
            yield _nothing(endpoint)
            return
        from orchestration.drift.comparing import compared  # seconds, which loading the definitions should not take

        found = compared(endpoint, champion, lake, registry)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(found.content_hash),
            metadata=found.metadata,
            check_results=[_checked(found.found.found, found.found.reason)],
        )

    return drift


def _nothing(endpoint: Endpoint) -> dg.MaterializeResult[None]:
    reason = f"not enough evidence: {endpoint.name} has no champion yet that learned from anything"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(reason), metadata={"found": reason}, check_results=[_checked((), reason)]
    )


def _checked(drifted: Sequence[str], reason: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        description=reason,
        metadata={"drifted": list(drifted)},
    )
