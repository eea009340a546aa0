"""Makes a candidate's two assets: trained and judged, then, behind its blocking checks, registered."""

from typing import Any

import dagster as dg

from models import Registry
from models.manifest import Manifest
from orchestration.automation.conditions import CANDIDATE, REGISTERED
from orchestration.candidates.checks import blocking
from orchestration.candidates.names import Candidate
from orchestration.candidates.registration import register, require_proof
from orchestration.candidates.reliability import reliability_chart
from orchestration.candidates.training import Trained, code_of, train
from orchestration.code_version import code_version
from orchestration.lake import Lake
from orchestration.pictures import picture

_GROUP = "candidates"


def trained_asset(candidate: Candidate) -> dg.AssetsDefinition:
    """The asset that trains a candidate and shows how good it is."""
    endpoint, code = candidate.endpoint, code_of(candidate)

    @dg.asset(
        name=candidate.trained_key,
        description=f"`{candidate.recipe.name}` trained on {endpoint.data.train.name} and judged on "
        f"{endpoint.data.validation.name}; it is registered once its checks have passed.",
        group_name=_GROUP,
        kinds={"scikitlearn"},
        deps=[endpoint.data.train.name, endpoint.data.validation.name],
        code_version=code,
        automation_condition=CANDIDATE,
    )
    def trained(lake: dg.ResourceParam[Lake], staging: dg.ResourceParam[Registry]) -> dg.MaterializeResult[None]:
        found = train(candidate, code, lake, staging)
        chart = reliability_chart(found.predictions, endpoint.label, candidate.model)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.data_version),
            metadata={
                **_quality(found),
                "reliability": picture(chart, f"Reliability of {candidate.model}"),
                **_artefact(staging.manifest(found.staged)),
                "params": dict(candidate.recipe.params),
                "training_seconds": round(found.seconds, 1),
            },
        )

    return trained


def registered_asset(candidate: Candidate) -> dg.AssetsDefinition:
    """The asset that registers a candidate whose checks have passed."""

    @dg.asset(
        name=candidate.key,
        description=f"Versions of the model `{candidate.model}` in the registry, ready to be served.",
        group_name=_GROUP,
        kinds={"onnx"},
        deps=[candidate.trained_key],
        code_version=code_version(register),
        automation_condition=REGISTERED,
    )
    def registered(
        context: dg.AssetExecutionContext,
        staging: dg.ResourceParam[Registry],
        registry: dg.ResourceParam[Registry],
    ) -> dg.MaterializeResult[None]:
        require_proof(context.instance, dg.AssetKey(candidate.trained_key), blocking(candidate))
        reference = register(staging.latest(candidate.model), staging, registry)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(str(reference)),
            metadata={
                "model": str(reference),
                "path": dg.MetadataValue.path(registry.path(reference)),
                "digest": registry.digest(reference),
                **_artefact(registry.manifest(reference)),
            },
        )

    return registered


def _quality(found: Trained) -> dict[str, Any]:
    lines = ["| metric | validation | 95 % interval | cross-validation |", "| --- | --- | --- | --- |"]
    for name, metric in found.metrics.items():
        folds = ", ".join(f"{fold.scores[name]:.4f}" for fold in found.folds)
        lines.append(f"| {name} | {metric.value:.4f} | {metric.low:.4f} to {metric.high:.4f} | {folds} |")
    values = {name: round(metric.value, 6) for name, metric in found.metrics.items()}
    return {"quality": dg.MetadataValue.md("\n".join(lines)), **values}


def _artefact(manifest: Manifest) -> dict[str, Any]:
    runtime = f"{manifest.runtime}, float{manifest.float_width}" if manifest.float_width else manifest.runtime
    return {
        "runtime": runtime,
        **({"onnx_largest_difference": float(f"{manifest.parity.max_abs_difference:.2g}")} if manifest.parity else {}),
        **({"notes": "; ".join(manifest.notes)} if manifest.notes else {}),
    }
