from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import Engine

from models.registry import Registry
from models.signature import Feature, Signature
from router.http.app import application
from router.ledger.database import open_database, upgrade
from router.service import Service
from router.settings import Settings
from tests.databases import BACKENDS, database, put_empty_ledger
from tests.router.ledgers import store_experiment
from tests.router.logged import filled_ledger, restored
from tests.router.rolling import Rolling, prepare, rolling
from tests.router.small_models import add_model, load_small

# A machine that is busy with other tests is slow, not wrong.
hypothesis.settings.register_profile("turnout", deadline=None)
hypothesis.settings.load_profile("turnout")


@pytest.fixture(params=BACKENDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A new ledger with a started experiment of id 1, in either database: what holds for one holds for the other."""
    with database(request.param, tmp_path) as url:
        if request.param == "sqlite":
            put_empty_ledger(tmp_path / "ledger.db")
        yield from _ledger(url)


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    """The same in SQLite only."""
    put_empty_ledger(tmp_path / "ledger.db")
    yield from _ledger(f"sqlite:///{tmp_path}/ledger.db")


@pytest.fixture
def postgresql_engine(tmp_path: Path) -> Iterator[Engine]:
    """The same in PostgreSQL only."""
    with database("postgresql", tmp_path) as url:
        yield from _ledger(url)


def _ledger(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    upgrade(engine)
    store_experiment(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings over an empty ledger and empty folders."""
    put_empty_ledger(tmp_path / "ledger.db")
    return Settings(
        database=f"sqlite:///{tmp_path}/ledger.db",
        registry=tmp_path / "registry",
        spool=tmp_path / "spool",
        max_batch=100,
    )


@pytest.fixture
def registry(settings: Settings) -> Registry:
    """A registry with one version of every small model, and one with another signature."""
    registry = Registry(settings.registry)
    for name in ("sum", "sum-too", "slow", "error", "nan"):
        add_model(registry, name)
    add_model(registry, "sum-other", Signature((Feature("distance", "category"), Feature("hour", "number")), "number"))
    return registry


@pytest.fixture
def client(settings: Settings, registry: Registry) -> Iterator[TestClient[Litestar]]:
    """A router over the small models, with an endpoint `delay` whose champion is sum@1."""
    service = Service(settings, load_model=load_small)
    assert registry.names()
    with TestClient(application(service, max_body_bytes=settings.max_body_bytes)) as client:
        created = client.post("/v1/endpoints", json={"name": "delay", "champion": "sum@1", "timeout_ms": 50})
        assert created.status_code == 201, created.text
        yield client


@pytest.fixture(scope="module", params=BACKENDS)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A ledger that a router filled with decisions of every kind, in either database."""
    with filled_ledger(request.param, tmp_path_factory.mktemp("filled")) as engine:
        yield engine


@pytest.fixture
def ledger(filled: Engine) -> Iterator[Engine]:
    """The same, as it was again after the test has altered it."""
    with restored(filled):
        yield filled


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry and an empty ledger, to be copied by each test of rollouts."""
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def play(prepared: Path, tmp_path: Path) -> Iterator[Rolling]:
    """Rollouts on a ledger of the test's own, without a server."""
    with rolling(prepared, tmp_path) as play:
        yield play
