"""From a checked candidate to a registered model version: the very files that were checked, under the next number."""

from collections.abc import Sequence

import dagster as dg

from models import ModelReference, Registry
from models.manifest import Draft
from orchestration.errors import NotProven
from orchestration.proof import unproven


def register(candidate: ModelReference, staging: Registry, registry: Registry) -> ModelReference:
    """Publish a staged candidate, verified file by file, as the next version of its name."""
    manifest = staging.verify(candidate)
    files = {file: staging.read(candidate, file) for file in manifest.files}
    draft = Draft(**{field: getattr(manifest, field) for field in Draft.__struct_fields__})
    return registry.publish(draft, files)


def require_proof(instance: dg.DagsterInstance, key: dg.AssetKey, checks: Sequence[str]) -> None:
    """Refuse a candidate whose blocking checks have not passed, in whichever run they were."""
    missing = unproven(instance, key, [dg.AssetCheckKey(key, check) for check in checks])
    if missing:
        names = ", ".join(check.name for check in missing)
        raise NotProven(
            f"{key.to_user_string()} is not registered, since its checks {names} have not passed: "
            "materialize it with its checks, and look at what they found"
        )
