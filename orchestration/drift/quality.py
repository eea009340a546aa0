"""Makes the asset of an endpoint's live quality: is its champion still as good as it was on the validation period?"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import dagster as dg
import pandas as pd

from models import ModelReference, Registry
from models.errors import InvalidSample
from models.evaluation import evaluate
from models.manifest import Metric
from orchestration.automation.conditions import REPORT
from orchestration.automation.freshness import RESULTS
from orchestration.candidates.champion import champion_of
from orchestration.candidates.comparison import is_worse
from orchestration.datasets.tables import markdown_table
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake
from orchestration.logs import logged_traffic
from orchestration.rollouts.router import Router

CHECK = "no_decay"
_FEWEST_LABELS = 100


class Quality(NamedTuple):
    """What was found, in a sentence, and the scores behind it."""

    decayed: bool
    reason: str
    live: Mapping[str, Metric] = {}


def quality_name(endpoint: Endpoint) -> str:
    """Name of the asset."""
    return f"{endpoint.key}_live_quality"


def quality_asset(endpoint: Endpoint) -> dg.AssetsDefinition:
    """The asset, with a check of the declared score that blocks nothing."""
    name = quality_name(endpoint)

    @dg.asset(
        name=name,
        description=f"Scores of what the champion of `{endpoint.name}` served on the newest {endpoint.drift.days} days "
        "of logs, beside those of its validation period.",
        group_name="results",
        kinds={"duckdb"},
        deps=[logged_traffic],
        automation_condition=REPORT,
        freshness_policy=RESULTS,
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=name,
                description=f"The interval of its live {endpoint.score} is not wholly worse than that of validation.",
            )
        ],
    )
    def quality(
        lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[Registry], router: dg.ResourceParam[Router]
    ) -> Iterator[dg.MaterializeResult[None]]:
        champion = champion_of(endpoint, router, registry)
        if champion is None:
            found, past = Quality(False, f"not enough evidence: {endpoint.name} has no champion yet"), {}
        else:
            past = dict(registry.manifest(champion).metrics)
            found = judge(endpoint, champion, past, lake)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(f"{champion} {found.live}"),
            metadata={
                "found": found.reason,
                "champion": str(champion),
                "scores": dg.MetadataValue.md(_table(past, found.live)),
                **{score: metric.value for score, metric in found.live.items()},
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=CHECK,
                    passed=not found.decayed,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=found.reason,
                )
            ],
        )

    return quality


def judge(endpoint: Endpoint, champion: ModelReference, past: Mapping[str, Metric], lake: Lake) -> Quality:
    """Score what the champion served where labels are known, and compare intervals with those of its validation."""
    from analysis.drifting import recent_judged  # seconds, which loading the definitions should not take
    from orchestration.drift.windows import PREDICTION, live_of

    judged = recent_judged(*live_of(endpoint, lake)[:2], endpoint.label, str(champion), endpoint.drift.units)
    if len(judged) < _FEWEST_LABELS:
        labels = f"{len(judged)} units with a label for what {champion} served"
        return Quality(False, f"not enough evidence: {labels}, and {_FEWEST_LABELS} are needed")
    try:
        live = evaluate(judged[endpoint.label].to_numpy(), judged[PREDICTION].to_numpy())
    except InvalidSample as error:
        return Quality(False, f"not enough evidence: {error}")
    score = endpoint.score
    if (before := past.get(score)) is None or before.low is None:
        return Quality(False, f"not enough evidence: {champion} has no interval for {score} of its validation", live)
    decayed = is_worse(score, live[score], before)
    sentence = f"{score} of {champion} is {_shown(live[score])} live, and was {_shown(before)} on validation"
    return Quality(decayed, f"{'decayed' if decayed else 'not worse beyond its interval'}: {sentence}", live)


def _shown(metric: Metric) -> str:
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"


def _table(past: Mapping[str, Metric], live: Mapping[str, Metric]) -> str:
    rows = [
        {"score": name, "live": _shown(metric), "validation": _shown(past[name]) if name in past else ""}
        for name, metric in live.items()
    ]
    return markdown_table(pd.DataFrame(rows)) if rows else "none yet"
