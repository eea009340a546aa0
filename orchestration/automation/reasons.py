"""Why an endpoint's candidates should be trained again: each reason with the evidence that it goes by.

The same code makes the same models of the same rows, so that nothing is a reason before there are others to learn from.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from textwrap import shorten
from typing import Literal, NamedTuple

import dagster as dg
from dagster._core.definitions.data_version import extract_data_version_from_entry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from models import Registry
from models.manifest import Manifest
from orchestration.candidates.names import Candidate
from orchestration.drift import assets as drift
from orchestration.drift import quality
from orchestration.endpoints.declaration import Endpoint

Kind = Literal["new data", "drift", "decay"]
_LONGEST = 200  # a tag is to be read at a glance; the check says the rest


class Reason(NamedTuple):
    """Why, in a sentence, and what makes this evidence different from that of another time."""

    kind: Kind
    sentence: str
    evidence: str
    """What there is to learn and what was learned before, which another look at the same drift does not change."""


class _Lead(NamedTuple):
    """What the training data have that a candidate has not learned from."""

    behind: str
    evidence: str


def reasons(endpoint: Endpoint, instance: dg.DagsterInstance, staging: Registry) -> Iterator[Reason]:
    """Yield what speaks for another training, as far as the endpoint declares it; nothing before the first one."""
    trained, period, wanted = _trained(endpoint, staging), endpoint.data.train.name, endpoint.retraining
    lead = _lead(period, instance, trained)
    if lead is None:
        return
    if wanted.on_new_data:
        rows = f"{period} has other rows than candidates learned from: {lead.behind}"
        yield Reason("new data", rows, lead.evidence)
    since = max(manifest.created_at for manifest in trained)
    if wanted.on_drift and (said := _failed(drift.drift_name(endpoint), drift.CHECK, instance, since)):
        yield Reason("drift", said, lead.evidence)
    if wanted.on_decay and (said := _failed(quality.quality_name(endpoint), quality.CHECK, instance, since)):
        yield Reason("decay", said, lead.evidence)


def _trained(endpoint: Endpoint, staging: Registry) -> list[Manifest]:
    """What was trained last of each candidate that ever was."""
    if not staging.root.is_dir():
        return []
    models = [Candidate(endpoint, recipe).model for recipe in endpoint.recipes]
    return [staging.manifest(staging.latest(model)) for model in models if staging.versions(model)]


def _lead(period: str, instance: dg.DagsterInstance, trained: Sequence[Manifest]) -> _Lead | None:
    record = instance.get_latest_data_version_record(dg.AssetKey(period))
    version = extract_data_version_from_entry(record.event_log_entry) if record else None
    if version is None:
        return None
    learned = {each.name: each.datasets[period] for each in trained if period in each.datasets}
    behind = {name: of.version for name, of in learned.items() if of.content_hash != version.value}
    if not behind:
        return None
    # With what was learned, for the same rows may come back after others.
    before = ", ".join(str(number) for number in sorted(set(behind.values())))
    named = ", ".join(f"{name} from version {number}" for name, number in behind.items())
    return _Lead(named, f"{version.value} after version {before}")


def _failed(asset: str, check: str, instance: dg.DagsterInstance, since: datetime) -> str | None:
    """What a check said that looked after the last training, and did not pass."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    newest = found[0] if found and found[0].status == AssetCheckExecutionRecordStatus.FAILED else None
    if newest is None or newest.event is None or newest.evaluation is None:
        return None
    # The record's own time is that of planning, and on SQLite in whole seconds.
    if datetime.fromtimestamp(newest.event.timestamp, UTC) <= since:
        return None
    said = newest.evaluation.description or f"{check} of {asset} failed"
    return shorten(said, _LONGEST, placeholder=" ..")
