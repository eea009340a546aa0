"""Makes a candidate's promotion asset: behind its checks, since a failed check does not unmake a materialization."""

import dagster as dg

from models import ModelReference, Registry
from orchestration.automation.conditions import ROLLOUT
from orchestration.candidates.checks import BEFORE_ROLLOUT
from orchestration.candidates.names import Candidate
from orchestration.candidates.registration import made_alike, require_proof
from orchestration.code_version import code_version
from orchestration.errors import NotProven, RolloutRefused
from orchestration.rollouts.handover import Handover, hand_over
from orchestration.rollouts.router import Router

GROUP = "rollouts"
KINDS = {"turnout"}
RETRY = dg.RetryPolicy(max_retries=5, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""For a router that is away: about ten minutes, in which the run keeps its slot; then it has failed and says why."""


def rollout_asset(candidate: Candidate, retry: dg.RetryPolicy = RETRY) -> dg.AssetsDefinition:
    """The asset that hands a candidate's newest registered version to the router."""
    endpoint = candidate.endpoint

    @dg.asset(
        name=f"{candidate.key}_rollout",
        description=f"The newest version of `{candidate.model}`, handed to the router with the plan that the endpoint "
        f"declares. What the router decided since is in `{observed_name(endpoint.key)}`.",
        group_name=GROUP,
        kinds=KINDS,
        deps=[candidate.trained_key, candidate.key],
        code_version=code_version(hand_over, endpoint.rollout),
        automation_condition=ROLLOUT,
        retry_policy=retry,
    )
    def rollout(
        context: dg.AssetExecutionContext,
        staging: dg.ResourceParam[Registry],
        registry: dg.ResourceParam[Registry],
        router: dg.ResourceParam[Router],
    ) -> dg.MaterializeResult[None]:
        try:
            version = proven_version(candidate, context.instance, staging, registry)
            with router.client() as client:
                found = hand_over(client, endpoint, version, registry)
        except (NotProven, RolloutRefused) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return dg.MaterializeResult(data_version=dg.DataVersion(str(version)), metadata=_described(version, found))

    return rollout


def observed_name(endpoint_key: str) -> str:
    """Name of the asset under which an endpoint's rollouts are shown."""
    return f"{endpoint_key}_rollouts"


def proven_version(
    candidate: Candidate, instance: dg.DagsterInstance, staging: Registry, registry: Registry
) -> ModelReference:
    """The newest registered version; raises NotProven unless it is what all the checks have seen last, and passed."""
    require_proof(instance, dg.AssetKey(candidate.trained_key), BEFORE_ROLLOUT)
    if not registry.versions(candidate.model):
        raise NotProven(f"no version of {candidate.model} is registered: materialize {candidate.key}, which does that")
    version, checked = registry.latest(candidate.model), staging.latest(candidate.model)
    if not made_alike(registry.manifest(version), staging.manifest(checked)):
        raise NotProven(
            f"{version} is not what was trained and checked last: materialize {candidate.key}, which registers that"
        )
    return version


def _described(version: ModelReference, found: Handover) -> dict[str, str]:
    name = {} if found.rollout is None else {"rollout": found.rollout}
    return {"model": str(version), **name, "state": found.state, "champion": found.champion}
