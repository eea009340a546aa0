"""A registered version is handed to the router once, and what the router decides comes back with its reasons."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import msgspec
import pytest

from models import ModelReference, Registry
from models.manifest import DatasetVersion
from models.recipe import logistic
from orchestration.candidates.champion import champion_of
from orchestration.candidates.checks import BEFORE_ROLLOUT
from orchestration.candidates.names import Candidate
from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import NotProven, RolloutRefused, RouterUnavailable
from orchestration.rollouts.assets import rollout_asset
from orchestration.rollouts.handover import Handover, hand_over
from orchestration.rollouts.observation import rollouts_sensor
from orchestration.rollouts.router import Router
from router import documents
from router.client import ApiError, Turnout
from router.documents.rollouts import contradictions
from router.settings import Settings
from tests.router.servers import serving
from tests.router.small_models import add_model

DECLARED = flight_delay.ENDPOINT._replace(recipes=(logistic(),), experiments=())
NOWHERE = Router(Settings(port=9))


class Site:
    """A router over HTTP, and the registry that it shares with the assets: two versions of a model."""

    def __init__(self, url: str, registry: Registry):
        self.registry = registry
        self.router = Router(Settings(port=int(url.rpartition(":")[2])))
        self.client = self.router.client()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("router")
    registry = Registry(root / "registry")
    settings = Settings(database=f"sqlite:///{root}/ledger.db", registry=registry.root, spool=root / "spool")
    with serving(settings) as url:
        site = Site(url, registry)
        yield site
        site.client.close()


class Fresh(NamedTuple):
    """An endpoint of its own name, so that tests share a router but nothing else, and two versions for it."""

    endpoint: Endpoint
    first: ModelReference
    second: ModelReference


def fresh(site: Site, name: str, *, serving: bool = True) -> Fresh:
    endpoint, model = DECLARED._replace(name=name), f"{name}-logistic"
    first, second = (ModelReference.parse(add_model(site.registry, model)) for _ in range(2))
    made = Fresh(endpoint, first, second)
    if serving:
        site.client.create_endpoint(endpoint.document({"logistic": str(made.first)}))
    return made


def test_first_version_serves_a_new_endpoint_at_once(site: Site) -> None:
    endpoint, _, newest = fresh(site, "new", serving=False)
    assert hand_over(site.client, endpoint, newest, site.registry) == Handover(None, "champion", str(newest))
    assert site.client.endpoint("new")["document"]["champion"] == str(newest)
    assert [each for each in site.client.rollouts() if each["document"]["endpoint"] == "new"] == []


def test_newer_version_is_rolled_out_once(site: Site) -> None:
    endpoint, first, second = fresh(site, "newer")
    handed = hand_over(site.client, endpoint, second, site.registry)
    assert (handed.rollout, handed.state, handed.champion) == ("newer-logistic-2", "waiting", str(first))
    document = site.client.rollout("newer-logistic-2")["document"]
    assert (document["endpoint"], document["candidate"]) == ("newer", str(second))
    assert [stage["kind"] for stage in document["stages"]] == ["shadow", "canary", "split", "champion"]
    site.client.move_rollout("newer-logistic-2", "rollback")
    assert hand_over(site.client, endpoint, second, site.registry) == handed._replace(state="rolled_back")


def test_champion_is_what_the_router_serves(site: Site) -> None:
    endpoint, first, second = fresh(site, "crowned")
    assert champion_of(endpoint, site.router, site.registry) == first
    assert champion_of(endpoint, NOWHERE, site.registry) == second
    unknown, _, newest = fresh(site, "uncrowned", serving=False)
    assert champion_of(unknown, site.router, site.registry) == newest


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_champion_is_not_guessed_while_the_router_refuses(
    site: Site, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = fresh(site, f"secret{status}").endpoint

    def refuse(*_: Any) -> Any:
        raise ApiError(status, {"detail": "not like this"})

    monkeypatch.setattr(Turnout, "endpoint", refuse)
    with pytest.raises(ApiError, match=f"{status}: not like this"):
        champion_of(endpoint, site.router, site.registry)


@pytest.mark.parametrize("module", [flight_delay, flight_choice])
def test_declared_plans_are_what_the_router_takes(module: Any) -> None:
    document = module.ROLLOUT.document(module.ENDPOINT.name, "flight-delay-logistic@2")
    assert list(contradictions(msgspec.convert(document, documents.Rollout), module.ENDPOINT.kind)) == []


def test_rollout_that_somebody_creates_meanwhile_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, _, second = fresh(site, "raced")
    create = Turnout.create_rollout

    def twice(client: Turnout, document: dict[str, Any]) -> dict[str, Any]:
        create(client, document)
        return create(client, document)

    monkeypatch.setattr(Turnout, "create_rollout", twice)
    assert hand_over(site.client, endpoint, second, site.registry).rollout == "raced-logistic-2"


def test_endpoint_needs_its_champion(site: Site) -> None:
    forest = ModelReference("nobody-forest", 1)
    with pytest.raises(NotProven, match="no version of nobody-logistic, the champion of nobody, is registered"):
        hand_over(site.client, DECLARED._replace(name="nobody"), forest, site.registry)


def test_refusal_says_what_to_do(site: Site) -> None:
    endpoint, _, second = fresh(site, "refused")
    with pytest.raises(RolloutRefused, match="declares no rollout plan: give it one as `rollout=`"):
        hand_over(site.client, endpoint._replace(rollout=None), second, site.registry)
    backwards = flight_delay.ROLLOUT._replace(stages=flight_delay.ROLLOUT.stages[::-1])
    with pytest.raises(RolloutRefused, match=r"champion is the last stage; .*; correct the rollout plan"):
        hand_over(site.client, endpoint._replace(rollout=backwards), second, site.registry)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_router_that_cannot_now_may_be_asked_again(site: Site, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def endpoints(_: Turnout) -> list[dict[str, Any]]:
        raise ApiError(status, {"detail": "busy"})

    monkeypatch.setattr(Turnout, "endpoints", endpoints)
    with pytest.raises(RouterUnavailable, match=f"cannot take a@1 now: {status}: busy"):
        hand_over(site.client, DECLARED, ModelReference("a", 1), site.registry)


def checked(candidate: Candidate, *passed: bool) -> dg.AssetsDefinition:
    """A candidate's two assets in place of those that train and register, with checks that turn out as told."""

    @dg.multi_asset(
        specs=[dg.AssetSpec(candidate.trained_key), dg.AssetSpec(candidate.key)],
        check_specs=[dg.AssetCheckSpec(name, asset=candidate.trained_key) for name in BEFORE_ROLLOUT],
    )
    def made() -> Iterator[Any]:
        yield dg.MaterializeResult(asset_key=candidate.trained_key)
        yield dg.MaterializeResult(asset_key=candidate.key)
        for name, result in zip(BEFORE_ROLLOUT, passed, strict=True):
            yield dg.AssetCheckResult(asset_key=candidate.trained_key, check_name=name, passed=result)

    return made


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def promote(
    instance: dg.DagsterInstance,
    site: Site,
    endpoint: Endpoint,
    *passed: bool,
    router: Router | None = None,
    staging: Registry | None = None,
) -> dg.ExecuteInProcessResult:
    candidate = Candidate(endpoint, logistic())
    retry = dg.RetryPolicy(max_retries=1, delay=0)
    return dg.materialize(
        [checked(candidate, *passed or (True,) * len(BEFORE_ROLLOUT)), rollout_asset(candidate, retry)],
        instance=instance,
        resources={"staging": staging or site.registry, "registry": site.registry, "router": router or site.router},
        raise_on_error=False,
    )


def reason(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    error: Any = failure.event_specific_data
    return str((error.error.cause or error.error).message)


def repeated(result: dg.ExecuteInProcessResult) -> bool:
    return bool(result.filter_events(lambda event: event.event_type_value == "STEP_UP_FOR_RETRY"))


def test_promotion_shows_what_the_router_said(instance: dg.DagsterInstance, site: Site) -> None:
    endpoint, first, second = fresh(site, "promoted")
    result = promote(instance, site, endpoint)
    assert result.success
    (event,) = result.asset_materializations_for_node("promoted_logistic_rollout")
    metadata = {key: value.value for key, value in event.metadata.items()}
    assert metadata.pop("state") in {"waiting", "running"}
    assert metadata == {"model": str(second), "rollout": "promoted-logistic-2", "champion": str(first)}


def test_failed_check_bars_the_way_to_the_router(instance: dg.DagsterInstance, site: Site) -> None:
    passed = [name != "not_worse_than_champion" for name in BEFORE_ROLLOUT]
    endpoint = fresh(site, "barred").endpoint
    result = promote(instance, site, endpoint, *passed)
    assert "its checks not_worse_than_champion have not passed" in reason(result)
    assert not repeated(result)
    assert [each for each in site.client.rollouts() if each["document"]["endpoint"] == "barred"] == []


def staged(folder: Path, name: str, **fields: Any) -> Registry:
    """A staging registry whose newest version of the model is like the registered ones, but for these fields."""
    staging = Registry(folder / "staging")
    manifest = staging.manifest(ModelReference.parse(add_model(staging, name)))
    staging.publish(msgspec.structs.replace(manifest, **fields), {"model": name.encode()})
    return staging


OTHERWISE: dict[str, dict[str, Any]] = {
    "code": {"code_version": "newer"},
    "rows": {"datasets": {"flight_delay_train": DatasetVersion(7, "other rows")}},
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_was_not_checked_last_is_not_handed_over(
    instance: dg.DagsterInstance, site: Site, tmp_path: Path, what: str
) -> None:
    """The checks passed for what is staged, and what is registered is something else."""
    endpoint, _, second = fresh(site, f"unchecked-{what}")
    staging = staged(tmp_path, second.name, **OTHERWISE[what])
    result = promote(instance, site, endpoint, staging=staging)
    assert f"{second} is not what was trained and checked last: materialize unchecked_{what}_logistic" in reason(result)
    assert not repeated(result)
    assert [each for each in site.client.rollouts() if each["document"]["endpoint"] == endpoint.name] == []


def test_what_was_checked_last_is_handed_over(instance: dg.DagsterInstance, site: Site, tmp_path: Path) -> None:
    endpoint, _, second = fresh(site, "staged")
    assert promote(instance, site, endpoint, staging=staged(tmp_path, second.name)).success


def test_unregistered_candidate_is_not_handed_over(instance: dg.DagsterInstance, site: Site, tmp_path: Path) -> None:
    result = promote(instance, site, DECLARED._replace(name="unheard"), staging=staged(tmp_path, "unheard-logistic"))
    assert "no version of unheard-logistic is registered: materialize unheard_logistic, which does that" in reason(
        result
    )


def test_absent_router_fails_clearly_and_is_asked_again(instance: dg.DagsterInstance, site: Site) -> None:
    endpoint, _, second = fresh(site, "absent")
    result = promote(instance, site, endpoint, router=NOWHERE)
    assert f"{second} cannot be handed over, since the router does not answer (" in reason(result)
    assert repeated(result)


def test_refusal_is_not_repeated(instance: dg.DagsterInstance, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def endpoints(_: Turnout) -> list[dict[str, Any]]:
        raise ApiError(403, {"detail": "needs an admin key"})

    monkeypatch.setattr(Turnout, "endpoints", endpoints)
    result = promote(instance, site, fresh(site, "forbidden").endpoint)
    assert "needs an admin key" in reason(result)
    assert not repeated(result)


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_sensor_reports_what_changed_and_nothing_twice(instance: dg.DagsterInstance, site: Site) -> None:
    endpoint, first, second = fresh(site, "watched")
    name = str(hand_over(site.client, endpoint, second, site.registry).rollout)
    until(lambda: site.client.rollout(name)["state"] == "running")
    sensor, cursor = rollouts_sensor([endpoint]), None

    def tick() -> Any:
        return sensor(dg.build_sensor_context(instance, cursor=cursor, resources={"router": site.router}))

    seen = tick()
    assert [event.metadata["state"].value for event in seen.asset_events] == ["running"]
    assert seen.skip_reason.skip_message == f"recorded {name}: running"
    cursor = seen.cursor
    assert tick().asset_events == []
    assert tick().skip_reason.skip_message == f"nothing changed: {name} running"
    site.client.move_rollout(name, "rollback")
    (event,) = tick().asset_events
    assert event.asset_key == dg.AssetKey("watched_rollouts")
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert (metadata["state"], metadata["candidate"], metadata["champion"]) == ("rolled_back", str(second), str(first))
    assert metadata["stage"] == "1 of 4, shadow"
    assert metadata["steps"].count("\n") == 1 + len(site.client.rollout(name)["transitions"])
    assert metadata["reason"] == site.client.rollout(name)["transitions"][-1]["reason"]


def test_sensor_waits_for_a_router_that_is_away(instance: dg.DagsterInstance) -> None:
    skipped = rollouts_sensor([DECLARED])(dg.build_sensor_context(instance, resources={"router": NOWHERE}))
    assert isinstance(skipped, dg.SkipReason)
    assert "does not tell of its rollouts" in str(skipped.skip_message)
