"""The checks that stand between a trained candidate and the registry, and before the router's door."""

import dagster as dg
import numpy as np
import pandas as pd

from models import ModelReference, Registry, load
from models.errors import InvalidSample, InvalidValue
from models.evaluation import scores
from models.export import PARITY_LIMIT
from models.frame import encode_frame
from models.manifest import Manifest
from orchestration.candidates import latency
from orchestration.candidates.champion import champion_of
from orchestration.candidates.comparison import chart, compare, table
from orchestration.candidates.names import Candidate
from orchestration.candidates.rows import rows_of
from orchestration.datasets.tables import markdown_table
from orchestration.lake import Lake
from orchestration.pictures import picture
from orchestration.rollouts.router import Router

_ALWAYS = ("parity", "skill", "latency")
_AGAINST_CHAMPION = "not_worse_than_champion"
BEFORE_ROLLOUT = (*_ALWAYS, _AGAINST_CHAMPION)
"""Without which no version is handed to the router."""


def blocking(candidate: Candidate) -> tuple[str, ...]:
    """The checks without which the candidate is not registered.

    What experiments or shadows name is registered even when it is worse than the champion, for to show that is what
    they are there for.
    """
    return _ALWAYS if candidate.recipe.name in candidate.endpoint.compared else BEFORE_ROLLOUT


def candidate_checks(candidate: Candidate) -> list[dg.AssetChecksDefinition]:
    """Everything that a candidate is checked for."""
    return [_parity_check(candidate), _skill_check(candidate), _latency_check(candidate), _champion_check(candidate)]


def _parity_check(candidate: Candidate) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=candidate.trained_key,
        name="parity",
        blocking=True,
        description="What will be served predicts what was judged, on every row of the validation period.",
    )
    def parity(lake: dg.ResourceParam[Lake], staging: dg.ResourceParam[Registry]) -> dg.AssetCheckResult:
        # Loading verifies digests, libraries and types, and repeats the manifest's sample.
        model = load(staging, staging.latest(candidate.model))
        rows = _validation(candidate, lake, model.manifest)
        served = model.predict(encode_frame(rows, model.signature))
        judged = lake.read(candidate.predictions)["prediction"].to_numpy()
        difference = float(np.max(np.abs(served - judged)))
        return dg.AssetCheckResult(
            passed=difference <= PARITY_LIMIT,
            description=f"largest difference {difference:.1e}, {PARITY_LIMIT:.0e} is allowed",
            metadata={"largest_difference": difference, "rows": len(rows), "limit": PARITY_LIMIT},
        )

    return parity


def _skill_check(candidate: Candidate) -> dg.AssetChecksDefinition:
    endpoint = candidate.endpoint

    @dg.asset_check(
        asset=candidate.trained_key,
        name="skill",
        blocking=True,
        description="Its log loss is below that of predicting the training period's rate for every row.",
    )
    def skill(lake: dg.ResourceParam[Lake], staging: dg.ResourceParam[Registry]) -> dg.AssetCheckResult:
        manifest, train = staging.manifest(staging.latest(candidate.model)), endpoint.data.train
        judged = lake.read(candidate.predictions)
        labels = judged[endpoint.label].to_numpy()
        rate = rows_of(lake, train, manifest.datasets[train.name], [endpoint.label])[endpoint.label].mean()
        ours = scores(labels, judged["prediction"].to_numpy())["log_loss"]
        constant = scores(labels, np.full(len(labels), rate))["log_loss"]
        return dg.AssetCheckResult(
            passed=ours < constant,
            description=f"log loss {ours:.4f}, predicting {rate:.1%} for every row {constant:.4f}",
            metadata={"log_loss": ours, "log_loss_of_constant": constant},
        )

    return skill


def _latency_check(candidate: Candidate) -> dg.AssetChecksDefinition:
    budget = candidate.endpoint.latency_ms

    @dg.asset_check(
        asset=candidate.trained_key,
        name="latency",
        blocking=True,
        description=f"The 99th percentile of single-row predictions, as they are served, is at most {budget:g} ms.",
    )
    def check(lake: dg.ResourceParam[Lake], staging: dg.ResourceParam[Registry]) -> dg.AssetCheckResult:
        model = load(staging, staging.latest(candidate.model))
        rows = _validation(candidate, lake, model.manifest)
        found = latency.measure(model, encode_frame(rows, model.signature))
        return dg.AssetCheckResult(
            passed=found.p99_ms <= budget,
            description=f"99th percentile {found.p99_ms:.3g} ms, {budget:g} ms are allowed",
            metadata={**found._asdict(), "budget_ms": budget},
        )

    return check


def _champion_check(candidate: Candidate) -> dg.AssetChecksDefinition:
    endpoint = candidate.endpoint

    @dg.asset_check(
        asset=candidate.trained_key,
        name=_AGAINST_CHAMPION,
        blocking=_AGAINST_CHAMPION in blocking(candidate),
        description=f"On the same validation rows its {endpoint.score} is not significantly worse than the champion's. "
        "No version that fails it is handed to the router.",
    )
    def not_worse(
        lake: dg.ResourceParam[Lake],
        staging: dg.ResourceParam[Registry],
        registry: dg.ResourceParam[Registry],
        router: dg.ResourceParam[Router],
    ) -> dg.AssetCheckResult:
        champion = champion_of(endpoint, router, registry)
        if champion is None:
            return dg.AssetCheckResult(passed=True, description="there is no champion yet")
        rows = _validation(candidate, lake, staging.manifest(staging.latest(candidate.model)))
        try:
            return _against(candidate, champion, rows, lake, registry)
        except (InvalidSample, InvalidValue) as error:
            # A champion that takes other features than the data have now must not bar every successor; one that is
            # damaged, or away, says nothing of them.
            return dg.AssetCheckResult(passed=True, description=f"not enough evidence: {error}")

    return not_worse


def _against(
    candidate: Candidate, champion: ModelReference, rows: pd.DataFrame, lake: Lake, registry: Registry
) -> dg.AssetCheckResult:
    data, score = candidate.endpoint.data, candidate.endpoint.score
    judged = lake.read(candidate.predictions).set_index(data.row_key)["prediction"]
    found = compare(
        rows[candidate.endpoint.label].to_numpy(),
        judged.loc[rows[data.row_key]].to_numpy(),
        _predictions(registry, champion, rows),
        rows[data.cluster].to_numpy(),
    )
    decisive = found[score]
    low, high = decisive.difference.low, decisive.difference.high
    return dg.AssetCheckResult(
        passed=decisive.verdict != "worse",
        description=f"{decisive.verdict}: {score} differs from {champion}'s by {decisive.difference.value:+.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f})",
        metadata={
            "champion": str(champion),
            "verdict": decisive.verdict,
            "scores": dg.MetadataValue.md(markdown_table(table(found))),
            "differences": picture(chart(found, f"{candidate.model} less {champion}"), f"Differences from {champion}"),
            "rows": len(rows),
            "clusters": int(rows[data.cluster].nunique()),
        },
    )


def _validation(candidate: Candidate, lake: Lake, manifest: Manifest) -> pd.DataFrame:
    """The rows that the candidate was judged on: the period may have been cut anew since."""
    period = candidate.endpoint.data.validation
    return rows_of(lake, period, manifest.datasets[period.name])


def _predictions(registry: Registry, reference: ModelReference, rows: pd.DataFrame) -> np.ndarray:
    model = load(registry, reference)
    return model.predict(encode_frame(rows, model.signature))
