import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from models import publish
from router.client import ApiError, Turnout
from tests.clusters import Cluster
from tests.clusters import cluster as new_cluster
from tests.clusters import problem as cluster_problem
from tests.databases import BACKENDS, require
from tests.metrics import BRIER
from tests.system.forks import Forks
from tests.system.forks import forks as fork_from
from tests.system.processes import Router, router
from tests.system.sites import Site
from tests.system.sites import site as new_site


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with four real models of one signature."""
    root = tmp_path_factory.mktemp("registry")
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "distance": rng.uniform(80, 2500, 500).astype(np.float32),
            "hour": rng.integers(5, 24, 500).astype(np.float32),
            "carrier": rng.choice(["B6", "UA", "DL", "AA"], 500),
        }
    )
    late = (rng.uniform(0, 24, 500) < frame["hour"]).astype(int)
    numbers, categories = ["distance", "hour"], ["carrier"]
    one_hot = make_column_transformer(
        (StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories)
    )
    ordinal = make_column_transformer(
        ("passthrough", numbers), (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), categories)
    )
    estimators = {
        "logistic": make_pipeline(one_hot, LogisticRegression()),
        "bayes": make_pipeline(one_hot, GaussianNB()),
        "boosting": make_pipeline(ordinal, HistGradientBoostingClassifier(max_iter=20)),
        "forest": make_pipeline(ordinal, RandomForestClassifier(20, max_depth=5, random_state=0)),
    }
    for name, estimator in estimators.items():
        publish(estimator.fit(frame, late), frame, name=name, registry=root)
    return root


@pytest.fixture
def running(tmp_path: Path, registry: Path) -> Iterator[Router]:
    """A router with endpoint `delay` and a running experiment of all four models."""
    with router(tmp_path, registry) as running:
        create_experiment(running.url)
        yield running


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A quick way to start routers."""
    with fork_from(tmp_path_factory.mktemp("forks")) as started:
        yield started


@pytest.fixture(params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path: Path, registry: Path, forks: Forks) -> Iterator[Site]:
    """An empty ledger in SQLite, then in PostgreSQL."""
    with new_site(request.param, tmp_path, registry, forks) as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that may be stopped."""
    require("postgresql", cluster_problem())
    with new_cluster() as started:
        yield started


@pytest.fixture
def own_site(cluster: Cluster, tmp_path: Path, registry: Path, forks: Forks) -> Iterator[Site]:
    """An empty ledger in that server."""
    made = Site(cluster.create_database(), tmp_path, registry, forks)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Put a line into the summary that ends the test run."""
    return lambda line: record_property("tally", str(line))


def create_experiment_on(routers: Sequence[Router]) -> None:
    """Create the experiment through the first router, and return when the others know it as well."""
    create_experiment(routers[0].url)
    for other in routers[1:]:
        with Turnout(other.url) as client:
            until(lambda: serves(client))


def serves(client: Turnout) -> bool:
    """Return whether a router decides within the experiment."""
    try:
        reply = client.predict("delay", unit="probe", inputs={"distance": 500.0, "hour": 17.0, "carrier": "B6"})
    except ApiError:
        return False
    return bool(reply["experiment"] == "four")


def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait for a condition and return how many seconds that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < seconds, f"it did not happen in {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - began_s


def create_experiment(url: str) -> None:
    """Create endpoint `delay` and start experiment `four`."""
    names = ("logistic", "bayes", "boosting", "forest")
    with Turnout(url) as client:
        client.create_endpoint({"name": "delay", "champion": "logistic@1"})
        client.create_experiment(
            {
                "name": "four",
                "endpoint": "delay",
                "arms": [{"name": name, "model": f"{name}@1"} for name in names],
                "allocation": {"kind": "split", "weights": dict.fromkeys(names, 0.25)},
                "metrics": [
                    BRIER,
                    {"name": "fee", "kind": "numeric", "direction": "decrease"},
                ],
            }
        )
        client.start("four")
