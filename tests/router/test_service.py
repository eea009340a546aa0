import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select, text

import router.service
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Feature, Signature
from router.documents import Endpoint, Experiment
from router.errors import InvalidDocument
from router.keys import LOCAL
from router.ledger import schema
from router.ledger.database import open_database
from router.ledger.rollup import DAY
from router.ledger.statements import lock_outcomes
from router.service import Service
from router.serving.outcomes import OutcomeRecorder
from router.settings import Settings
from tests.databases import database
from tests.router.documents import INPUTS, experiment
from tests.router.small_models import FEATURES, SumModel, add_model, load_small

OLD_STATISTIC = "insert into statistics values (1, 0, 'click', 7, 1, 0, 1, 1.0, 1.0)"
BODY = msgspec.json.encode({"unit": "u", "inputs": INPUTS, "id": "order-1"})


def endpoint(champion: str) -> Endpoint:
    return Endpoint(name="delay", champion=champion)


def load_or_break(registry: Registry, reference: ModelReference) -> SumModel:
    if reference.name == "sum-broken":
        raise RuntimeError("this library is odd")
    return load_small(registry, reference)


async def predict(service: Service) -> dict[str, Any]:
    reply: dict[str, Any] = msgspec.json.decode(await service.predictor.predict("delay", BODY))
    return reply


async def label(recorder: OutcomeRecorder, decision_id: str) -> str:
    row = {"decision_id": decision_id, "metric": "late", "value": 1}
    return (await recorder.record_one(msgspec.json.encode(row))).status


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.02)


def spans(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(select(schema.statistics.c.span)))


def waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        mine = "database = (select oid from pg_database where datname = current_database())"
        query = f"select 1 from pg_locks where locktype = 'advisory' and not granted and {mine}"  # noqa: S608
        return connection.scalar(text(query)) is not None


def test_polling_outlives_a_database_that_fails(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router.service, "REFRESH_S", 0.02)
    assert registry.names()

    async def go() -> None:
        service = Service(settings, load_model=load_small)
        await service.start()
        other = open_database(settings.database)
        with other.begin() as connection:
            connection.execute(text("alter table control_version rename to away"))
        await asyncio.sleep(0.1)
        with other.begin() as connection:
            connection.execute(text("alter table away rename to control_version"))
        await asyncio.to_thread(service.control.create_endpoint, endpoint("sum@1"), actor=LOCAL)
        for _ in range(100):
            if service.routes().endpoints:
                break
            await asyncio.sleep(0.02)
        assert (await predict(service))["model"] == "sum@1"
        await service.stop()
        other.dispose()

    asyncio.run(go())


def test_old_statistics_are_added_up_soon_after_the_start_and_after_a_failure(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(router.service, "HOUSEKEEPING_RETRY_S", 0.05)
    assert registry.names()

    async def go() -> None:
        service = Service(settings, load_model=load_small)
        other = open_database(settings.database)
        with other.begin() as connection:
            connection.execute(text(OLD_STATISTIC))
            connection.execute(text("alter table statistics rename to away"))
        await service.start()
        await until(lambda: "cannot make partitions or add old statistics up" in caplog.text)
        with other.begin() as connection:
            connection.execute(text("alter table away rename to statistics"))
        await until(lambda: spans(other) == [DAY])
        await service.stop()
        other.dispose()

    asyncio.run(go())


def test_changes_are_followed_while_housekeeping_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.service, "HOUSEKEEPING_RETRY_S", 0.05)

    async def go(settings: Settings) -> None:
        add_model(Registry(settings.registry), "sum")
        service = Service(settings, load_model=load_small)
        other = open_database(settings.database)
        with other.begin() as connection:
            connection.execute(text(OLD_STATISTIC))
        with other.begin() as connection:
            lock_outcomes(connection)
            await service.start()
            await until(lambda: waits_for_a_lock(other))
            await asyncio.to_thread(service.control.create_endpoint, endpoint("sum@1"), actor=LOCAL)
            await until(lambda: "delay" in service.routes().endpoints, seconds=3.0)
        await until(lambda: spans(other) == [DAY])
        await service.stop()
        other.dispose()

    with database("postgresql", tmp_path) as url:
        registry, spool = tmp_path / "registry", tmp_path / "spool"
        asyncio.run(go(Settings(database=url, registry=registry, spool=spool, secret="a secret of enough length")))


def test_a_champion_that_breaks_at_loading_leaves_the_old_one_serving(settings: Settings, registry: Registry) -> None:
    add_model(registry, "sum-broken")

    async def go() -> None:
        service = Service(settings, load_model=load_or_break)
        await service.start()
        await asyncio.to_thread(service.control.create_endpoint, endpoint("sum@1"), actor=LOCAL)
        await service.refresh()
        await asyncio.to_thread(service.control.replace_endpoint, endpoint("sum-broken@1"), "1", actor=LOCAL)
        await service.refresh()
        assert (await predict(service))["model"] == "sum@1"
        assert "RuntimeError: this library is odd" in service.routes().problems["sum-broken@1"]
        await service.stop()

    asyncio.run(go())


def test_a_champion_whose_files_are_gone_can_be_replaced(settings: Settings, registry: Registry) -> None:
    service = Service(settings, load_model=load_small)
    service.control.create_endpoint(endpoint("sum@1"), actor=LOCAL)
    (registry.root / "sum" / "1" / "manifest.json").unlink()
    assert service.control.replace_endpoint(endpoint("sum-too@1"), "1", actor=LOCAL).revision == 2


def test_a_champion_must_not_take_what_the_arms_do_not(settings: Settings, registry: Registry) -> None:
    service = Service(settings, load_model=load_small)
    service.control.create_endpoint(endpoint("sum@1"), actor=LOCAL)
    service.control.create_experiment(msgspec.convert(experiment(), Experiment), actor=LOCAL)
    service.control.start("too-vs-sum", "*", actor=LOCAL)
    wider = Signature(tuple(Feature(each.name, each.kind, nullable=True) for each in FEATURES), "probability")
    reference = add_model(registry, "sum-wider", wider)
    with pytest.raises(InvalidDocument, match="arm 'control' of experiment 'too-vs-sum' does not: feature"):
        service.control.replace_endpoint(endpoint(reference), "1", actor=LOCAL)


def test_a_process_that_has_not_read_an_experiment_yet_counts_its_outcomes_and_retries(
    settings: Settings, registry: Registry
) -> None:
    assert registry.names()

    async def go() -> None:
        one, other = (Service(settings, load_model=load_small) for _ in range(2))
        await asyncio.to_thread(one.control.create_endpoint, endpoint("sum@1"), actor=LOCAL)
        await one.start()
        await other.start()
        await asyncio.to_thread(one.control.create_experiment, msgspec.convert(experiment(), Experiment), actor=LOCAL)
        await asyncio.to_thread(one.control.start, "too-vs-sum", "*", actor=LOCAL)
        await one.refresh()
        decided = await predict(one)
        assert decided["experiment"] == "too-vs-sum"
        assert await predict(other) == decided
        assert await label(other.outcomes, decided["decision_id"]) == "accepted"
        await one.stop()
        await other.stop()

    asyncio.run(go())
