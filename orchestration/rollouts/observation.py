"""Brings back what the router decided: every change of a rollout becomes an event of the endpoint's rollouts."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import httpx
import msgspec
import pandas as pd

from orchestration.automation.attributes import ENDPOINT_TAG
from orchestration.candidates.names import Candidate
from orchestration.datasets.tables import markdown_table
from orchestration.endpoints.declaration import Endpoint
from orchestration.rollouts.assets import GROUP, KINDS, observed_name
from orchestration.rollouts.router import Router
from router.client import ApiError

Json = Mapping[str, Any]
_INTERVAL_S = 30
_STEP = ("at", "actor", "action", "state", "stage", "reason")
_FINDING = ("name", "scope", "role", "verdict", "control", "candidate", "difference", "low", "high", "margin", "text")


def observed_asset(endpoint: Endpoint) -> dg.AssetSpec:
    """The endpoint's rollouts as the router has them; nothing materializes it but what is seen there."""
    return dg.AssetSpec(
        observed_name(endpoint.key),
        description=f"What the router decided of rollouts on `{endpoint.name}`, and why: each of its steps is an event "
        "here, with the numbers that it went by.",
        group_name=GROUP,
        kinds=KINDS,
        deps=[f"{Candidate(endpoint, recipe).key}_rollout" for recipe in endpoint.recipes],
        owners=endpoint.owners,
        tags={ENDPOINT_TAG: endpoint.name},
    )


def rollouts_sensor(endpoints: Sequence[Endpoint]) -> dg.SensorDefinition:
    """The sensor that asks the router what it did since."""
    assets = {endpoint.name: dg.AssetKey(observed_name(endpoint.key)) for endpoint in endpoints}

    @dg.sensor(
        name="rollouts",
        description="Asks the router for its rollouts, and records what changed since it was asked last.",
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def rollouts(
        context: dg.SensorEvaluationContext, router: dg.ResourceParam[Router]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            with router.client() as client:
                found = client.rollouts()
        except (ApiError, httpx.HTTPError) as error:
            return dg.SkipReason(f"the router at {router.url} does not tell of its rollouts: {error}")
        ours = [each for each in found if each["document"]["endpoint"] in assets]
        seen = _seen(context.cursor)
        events = [
            event_of(each, assets[each["document"]["endpoint"]])
            for each in ours
            if seen.get(each["document"]["name"]) != each["revision"]
        ]
        now = {each["document"]["name"]: each["revision"] for each in ours}
        return dg.SensorResult(
            asset_events=events, cursor=msgspec.json.encode(now).decode(), skip_reason=_sentence(ours, events)
        )

    return rollouts


def event_of(rollout: Json, asset: dg.AssetKey) -> dg.AssetMaterialization:
    """A rollout's present state as an event: how far it is, every step so far and why, and the last one's numbers."""
    document, steps = rollout["document"], rollout["transitions"]
    return dg.AssetMaterialization(
        asset_key=asset,
        description=f"{document['name']}: {rollout['state']}",
        metadata={
            "rollout": document["name"],
            "candidate": document["candidate"],
            "champion": str(rollout["champion"]),
            "state": rollout["state"],
            "stage": f"{rollout['stage'] + 1} of {len(document['stages'])}, {rollout['stage_kind']}",
            "reason": str(steps[-1]["reason"]) if steps else "",
            "steps": dg.MetadataValue.md(_table(steps, _STEP)),
            "numbers": dg.MetadataValue.md(_table(steps[-1]["findings"] if steps else [], _FINDING)),
            "experiments": list(rollout["experiments"]),
        },
    )


def _seen(cursor: str | None) -> dict[str, int]:
    return msgspec.json.decode(cursor, type=dict[str, int]) if cursor else {}


def _sentence(rollouts: Sequence[Json], events: Sequence[dg.AssetMaterialization]) -> str:
    """What the tick says: no run follows from it, whatever was recorded."""
    if events:
        return f"recorded {', '.join(str(event.description) for event in events)}"
    states = ", ".join(f"{each['document']['name']} {each['state']}" for each in rollouts)
    return f"nothing changed: {states}" if states else "the router has no rollouts"


def _table(rows: Sequence[Json], columns: Sequence[str]) -> str:
    if not rows:
        return "none"
    return markdown_table(pd.DataFrame([{name: _text(row.get(name)) for name in columns} for row in rows]))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
