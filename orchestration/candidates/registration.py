"""From a checked candidate to a registered model version: the very files that were checked, under the next number."""

from collections.abc import Sequence

import dagster as dg

from models import ModelReference, Registry
from models.manifest import Draft, Manifest
from orchestration.errors import NotProven
from orchestration.proof import unproven


def register(candidate: ModelReference, staging: Registry, registry: Registry) -> ModelReference:
    """Publish a staged candidate, verified file by file, as the next version of its name.

    What was registered last stays the newest version while the candidate was made from the same by the same again.
    """
    manifest = staging.verify(candidate)
    if registry.root.is_dir() and registry.versions(candidate.name):
        last = registry.manifest(registry.latest(candidate.name))
        if made_alike(last, manifest):
            return last.reference
    files = {file: staging.read(candidate, file) for file in manifest.files}
    draft = Draft(**{field: getattr(manifest, field) for field in Draft.__struct_fields__})
    return registry.publish(draft, files)


def made_alike(one: Manifest, other: Manifest) -> bool:
    """Whether the same code and declaration made both from the same rows; in their files the last digits may differ."""
    return one.code_version == other.code_version and _rows(one) == _rows(other)


def _rows(manifest: Manifest) -> dict[str, str]:
    return {name: version.content_hash for name, version in manifest.datasets.items()}


def require_proof(instance: dg.DagsterInstance, key: dg.AssetKey, checks: Sequence[str]) -> None:
    """Refuse a candidate whose blocking checks have not passed, in whichever run they were."""
    missing = unproven(instance, key, [dg.AssetCheckKey(key, check) for check in checks])
    if missing:
        names = ", ".join(check.name for check in missing)
        raise NotProven(
            f"{key.to_user_string()} goes no further, since its checks {names} have not passed: "
            "materialize it with its checks, and look at what they found"
        )
