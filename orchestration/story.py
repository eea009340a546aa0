"""The year 2013 at one endpoint: candidates that walk to champion and back, and why each of them did.

April's flights carry a first candidate to champion. In June the traffic is found to have drifted, so models are trained
again on what has arrived since, and the newest has its turn in July; one that learned from shifted features is caught.
The router decides all of it; this only sends the traffic and lets Dagster make what is due.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import dagster as dg
from rich.console import Console

from models import ModelReference, Registry
from orchestration.automation.attributes import ENDPOINT_TAG
from orchestration.automation.reasons import reasons
from orchestration.automation.retraining import REASON_TAG
from orchestration.candidates.names import Candidate
from orchestration.datasets.tables import month_of
from orchestration.drift.assets import drift_name
from orchestration.endpoints import flight_season
from orchestration.flights import sabotage
from orchestration.flights.datasets import REPLAY
from orchestration.flights.traffic import delay_requests
from orchestration.labelled import LabelledRequest
from orchestration.lake import Lake
from orchestration.ledger import Ledger
from orchestration.refresh import refresh_candidates
from orchestration.replay import replay
from orchestration.rollouts.assets import observed_name
from orchestration.rollouts.observation import event_of
from orchestration.staleness import materialize, materialize_stale
from router.client import ApiError, Turnout
from router.settings import Settings

ENDPOINT = flight_season.ENDPOINT
BOOSTING = Candidate(ENDPOINT, ENDPOINT.recipes[1])
APRIL, JUNE, JULY = "2013-04-01", "2013-06-01", "2013-07-01"
_MOST = 8_000
"""Flights that a rollout gets at most before it is taken back."""
_CHUNK = 250
_STEP_WAIT_S, _POLL_S = 30.0, 0.1
_ENDED = {"promoted", "rolled_back"}
_DEPLOYMENT = ({"kind": "canary", "share": 0.2, "min_decisions": 50}, {"kind": "split"}, {"kind": "champion"})
"""What the candidate from elsewhere is deployed with: nobody thought of a shadow."""

Json = dict[str, Any]
Progress = Callable[[int, int, str], None]


class Theatre(NamedTuple):
    """What the acts need: where everything is, and what to tell of how far they are."""

    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    progress: Progress

    @property
    def lake(self) -> Lake:
        """The lake of these settings."""
        return Lake(self.settings.lake.resolve())

    @property
    def registry(self) -> Registry:
        """The registry of these settings."""
        return Registry(self.settings.registry.resolve())

    def router(self) -> Turnout:
        """A client of the router."""
        return Turnout(self.settings.router_url, api_key=self.settings.api_key, timeout_s=60)


def candidates() -> dg.AssetSelection:
    """The assets of this endpoint's candidates, which are trained when there is a reason to."""
    made = [Candidate(ENDPOINT, recipe) for recipe in ENDPOINT.recipes]
    return dg.AssetSelection.assets(*(name for each in made for name in (each.trained_key, each.key)))


def spring(theatre: Theatre) -> None:
    """Train and hand over the first candidate, and send April until the router has decided."""
    if not theatre.registry.versions(BOOSTING.model):
        materialize_stale(theatre.definitions, theatre.instance, candidates())
    if not _is_over(theatre, _rollout_of(theatre.registry.latest(BOOSTING.model))):
        _hand_over(theatre)
    _fly(theatre, APRIL, _rollout_of(_first(theatre)))


def summer(theatre: Theatre) -> None:
    """Find the drift in June, train again, and send July: to what came of that, then to one of shifted features."""
    if theatre.registry.latest(BOOSTING.model) == _first(theatre):
        _send(theatre, _requests(theatre, JUNE)[: ENDPOINT.drift.units], "june")
        _learn_again(theatre)
    newest = theatre.registry.latest(BOOSTING.model)
    if newest != _first(theatre):
        _fly(theatre, JULY, _rollout_of(newest))
    bad = sabotage.publish_sabotaged(ENDPOINT, BOOSTING.recipe, theatre.lake, theatre.registry)
    if not _is_over(theatre, _rollout_of(bad)):
        with theatre.router() as router:
            _create(router, {**flight_season.ROLLOUT.document(ENDPOINT.name, str(bad)), "stages": list(_DEPLOYMENT)})
    _fly(theatre, JULY, _rollout_of(bad))


def told(theatre: Theatre) -> Iterator[tuple[str, Json]]:
    """Yield each rollout's step with the name of the rollout, in the order in which they happened."""
    with theatre.router() as router:
        mine = [each for each in router.rollouts() if each["document"]["endpoint"] == ENDPOINT.name]
    steps = [(each["document"]["name"], step) for each in mine for step in each["transitions"]]
    yield from sorted(steps, key=lambda told: told[1]["at"])


def show(theatre: Theatre, console: Console) -> None:
    """Print what happened and why."""
    console.print(f"2013 at endpoint {ENDPOINT.name}, as its router and Dagster tell it", style="bold", markup=False)
    for name, step in told(theatre):
        what = "promoted" if step["state"] == "promoted" else step["action"]
        console.print(f"- {name}: {what}, {_brief(step['reason']) or 'waits for its turn'}", markup=False)
    runs = theatre.instance.get_runs(dg.RunsFilter(tags={ENDPOINT_TAG: ENDPOINT.name}))
    for reason in sorted({run.tags[REASON_TAG] for run in runs if REASON_TAG in run.tags}):
        console.print(f"- trained again: {reason}", markup=False)


def _learn_again(theatre: Theatre) -> None:
    """Export what was logged, look for drift, and train for the reasons that are found; the router gets the result."""
    days = [day.isoformat() for day in Ledger(theatre.settings).days()]
    drift = dg.AssetSelection.assets(drift_name(ENDPOINT))
    materialize(theatre.definitions, theatre.instance, dg.AssetSelection.groups("logs") | drift, partitions=days)
    periods = dg.AssetSelection.assets(*(period.name for period in ENDPOINT.data.periods))
    # Dagster does not see that a table cut from all months is behind when one more has arrived.
    materialize(theatre.definitions, theatre.instance, periods)
    staging = Registry(theatre.settings.lake.resolve() / "staging")
    found = [f"{each.kind}: {each.sentence}" for each in reasons(ENDPOINT, theatre.instance, staging)]
    if not found:
        return
    tags = {REASON_TAG: "; ".join(found), ENDPOINT_TAG: ENDPOINT.name}
    # A candidate whose checks fail is not registered, as the asset graph shows; the others go on.
    refresh_candidates(theatre.definitions, theatre.instance, ENDPOINT, tags=tags)
    if theatre.registry.latest(BOOSTING.model) != _first(theatre):
        _hand_over(theatre)


def _hand_over(theatre: Theatre) -> None:
    selection = dg.AssetSelection.assets(f"{BOOSTING.key}_rollout")
    materialize_stale(theatre.definitions, theatre.instance, selection)


def _first(theatre: Theatre) -> ModelReference:
    return ModelReference(BOOSTING.model, theatre.registry.versions(BOOSTING.model)[0])


def _rollout_of(version: ModelReference) -> str:
    return str(flight_season.ROLLOUT.document(ENDPOINT.name, str(version))["name"])


def _fly(theatre: Theatre, month: str, rollout: str) -> None:
    """Send the month's flights until the rollout is over; one that is still under way then is taken back."""
    if _is_over(theatre, rollout):
        return
    requests = _requests(theatre, month)[:_MOST]
    sent = 0
    while sent < len(requests) and not _is_over(theatre, rollout):
        chunk = requests[sent : sent + _CHUNK]
        _await_step(theatre, rollout)
        _send(theatre, chunk, rollout)
        sent += len(chunk)
        theatre.progress(sent, len(requests), f"{month[:7]}: {rollout}")
    _await_step(theatre, rollout)
    if not _is_over(theatre, rollout):
        with theatre.router() as router:
            router.move_rollout(rollout, "rollback")
    _observe(theatre, rollout)


def _await_step(theatre: Theatre, rollout: str) -> None:
    """Wait for a step that is due, so that flights are not spent on a stage that has its verdict already."""
    until = time.monotonic() + _STEP_WAIT_S
    with theatre.router() as router:
        found = router.rollout(rollout)
        while found["state"] in {"waiting", "running"} and time.monotonic() < until:
            if found["state"] == "running" and router.rollout_verdict(rollout)["verdict"] == "insufficient":
                return
            time.sleep(_POLL_S)
            found = router.rollout(rollout)


def _send(theatre: Theatre, requests: Sequence[LabelledRequest], key: str) -> None:
    replay(theatre.settings.router_url, requests, key=f"{ENDPOINT.name}/{key}", api_key=theatre.settings.api_key)


def _requests(theatre: Theatre, month: str) -> Sequence[LabelledRequest]:
    frame = theatre.lake.read(REPLAY.table, month_of(month))
    rows = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    return delay_requests(ENDPOINT, rows)


def _is_over(theatre: Theatre, rollout: str) -> bool:
    with theatre.router() as router:
        found = _found(router, rollout)
    return found is not None and found["state"] in _ENDED


def _found(router: Turnout, rollout: str) -> Json | None:
    return next((each for each in router.rollouts() if each["document"]["name"] == rollout), None)


def _create(router: Turnout, document: Json) -> None:
    if _found(router, document["name"]) is None:
        try:
            router.create_rollout(document)
        except ApiError as error:
            raise AssertionError(f"the router refuses {document['name']}: {error}") from error


def _observe(theatre: Theatre, rollout: str) -> None:
    """Let Dagster show what the router decided, as the sensor does while Dagster runs."""
    with theatre.router() as router:
        found = router.rollout(rollout)
    theatre.instance.report_runless_asset_event(event_of(found, dg.AssetKey(observed_name(ENDPOINT.key))))


def _brief(reason: str) -> str:
    """The first things that a reason says, each of which ends with a semicolon."""
    return "; ".join(reason.split("; ")[:2])
