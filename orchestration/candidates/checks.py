"""The blocking checks that stand between a trained candidate and the registry."""

import dagster as dg
import numpy as np

from models import Registry, load
from models.evaluation import scores
from models.export import PARITY_LIMIT
from models.frame import encode_frame
from orchestration.candidates.names import Candidate
from orchestration.lake import Lake

BLOCKING = ("parity", "skill")


def candidate_checks(candidate: Candidate) -> list[dg.AssetChecksDefinition]:
    """Everything that a candidate has to pass."""
    return [_parity_check(candidate), _skill_check(candidate)]


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
        rows = lake.read(candidate.endpoint.data.validation.table)
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
    def skill(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        judged = lake.read(candidate.predictions)
        labels = judged[endpoint.label].to_numpy()
        rate = lake.read(endpoint.data.train.table, columns=[endpoint.label])[endpoint.label].mean()
        ours = scores(labels, judged["prediction"].to_numpy())["log_loss"]
        constant = scores(labels, np.full(len(labels), rate))["log_loss"]
        return dg.AssetCheckResult(
            passed=ours < constant,
            description=f"log loss {ours:.4f}, predicting {rate:.1%} for every row {constant:.4f}",
            metadata={"log_loss": ours, "log_loss_of_constant": constant},
        )

    return skill
