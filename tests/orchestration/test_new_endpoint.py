"""`turnout new endpoint`: what it writes works as it stands, from the file to a registered model, or is not written."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date, time, timedelta
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import click
import dagster as dg
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet as pq

from models import ModelReference, Registry, load
from models.recipe import base_rate
from orchestration.commands.deploy import deploy
from orchestration.commands.materialize import materialize
from orchestration.commands.replay import replay
from orchestration.definitions import build
from orchestration.endpoints.declaration import Endpoint, Experiment
from orchestration.errors import SchemaConflict, SourceUnavailable
from orchestration.lake import Lake, Partition
from orchestration.refresh import refresh
from orchestration.scaffolding.sample import visits
from orchestration.staleness import Progress
from router import documents
from router.client import Turnout
from router.settings import Settings
from tests.orchestration.shops import ROWS, csv_folder, database, write
from tests.router.servers import serving

REPOSITORY = Path(__file__).parents[2]


class Site(NamedTuple):
    """Where an endpoint is brought up to date."""

    data: Path
    endpoint: Endpoint
    lake: Lake
    registry: Registry
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def refresh(self, progress: list[Progress] | None = None) -> list[str]:
        seen = [] if progress is None else progress
        made, failed = refresh(self.definitions, self.instance, self.lake, self.endpoint, seen.append)
        assert failed == {}
        return made


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Iterator[Site]:
    """The endpoint of a CSV folder, brought up to date once, with the cheaper of its recipes."""
    root = tmp_path_factory.mktemp("site")
    data = csv_folder(root / "visits")
    written = write(root / "endpoints_of_site", patched, "shop", "--from", "visits", "--label", "bought")
    endpoint = written.endpoint._replace(recipes=written.endpoint.recipes[:1])
    settings = Settings(database=f"sqlite:///{root}/turnout.db", registry=root / "registry", lake=root / "lake")
    with dg.DagsterInstance.ephemeral() as instance:
        made = Site(
            data,
            endpoint,
            Lake(settings.lake),
            Registry(settings.registry),
            build(settings, (endpoint,)),
            instance,
        )
        assert made.refresh() == [
            *(f"shop_rows[2025-{month:02}-01]" for month in range(1, 4)),
            "shop_train",
            "shop_validation",
            "shop_logistic_candidate",
            "shop_logistic",
        ]
        yield made


def test_model_of_new_endpoint_is_registered(site: Site) -> None:
    manifest = site.registry.manifest(ModelReference("shop-logistic", 1))
    kinds = {feature.name: (feature.kind, feature.nullable) for feature in manifest.signature.features}
    assert kinds == {
        "device": ("category", False),
        "pages": ("number", False),
        "minutes": ("number", False),
        "code": ("category", False),
        "age": ("number", True),
        "member": ("boolean", False),
    }
    assert manifest.runtime == "onnx"
    assert set(manifest.datasets) == {"shop_train", "shop_validation"}


def test_last_fifth_of_the_rows_validates(site: Site) -> None:
    train, validation = (site.lake.read(period.table) for period in site.endpoint.data.periods)
    assert (len(train), len(validation)) == (2400, 600)
    assert train["started_at"].max() < validation["started_at"].min()


def test_second_refresh_makes_nothing_and_new_rows_make_what_hangs_on_them(site: Site) -> None:
    assert site.refresh() == []
    later = ROWS.iloc[-100:].assign(
        visit_id=lambda rows: rows["visit_id"] + "-later",
        started_at=lambda rows: rows["started_at"].str.replace("2025-03", "2025-04"),
    )
    (site.data / "third.csv").write_text(later[later["started_at"] >= "2025-04"].to_csv(index=False))
    progress: list[Progress] = []
    made = site.refresh(progress)
    assert made[:3] == ["shop_rows[2025-04-01]", "shop_train", "shop_validation"]
    assert set(made[3:]) == {"shop_logistic_candidate", "shop_logistic"}
    assert site.registry.versions("shop-logistic") == (1, 2)
    assert Progress(("shop_rows",), "2025-04-01", 0, 1) in progress


def test_month_without_rows_passes_its_check(site: Site) -> None:
    job = site.definitions.resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(
        instance=site.instance, partition_key="2025-11-01", asset_selection=[dg.AssetKey("shop_rows")]
    )
    assert [check.passed for check in run.get_asset_check_evaluations()] == [True]
    assert "2025-11-01" not in site.lake.partitions("datasets/shop_rows")


def test_table_that_is_divided_otherwise_is_named(site: Site) -> None:
    with pytest.raises(SchemaConflict, match=r"divided by month_start, not by day: .* delete .*shop_rows"):
        site.lake.has_rows("datasets/shop_rows", Partition("day", "2025-01-01"))


def test_source_that_went_away_is_named(site: Site) -> None:
    hidden = site.data.rename(site.data.with_name("hidden"))
    try:
        with pytest.raises(SourceUnavailable, match="visits does not exist"):
            site.refresh()
    finally:
        hidden.rename(site.data)


def test_columns_are_sorted_by_use(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write(
        tmp_path / "described", monkeypatch, "shop", "--from", str(site.data), "--label", "bought", "--json"
    )
    described = msgspec.json.decode(written.result.output)
    assert described["file"] == str(written.folder / "shop.py")
    assert {name: described[name] for name in ("label", "row_key", "time", "every", "features", "left_out")} == {
        "label": "bought",
        "row_key": "visit_id",
        "time": "started_at",
        "every": "month",
        "features": ["device", "pages", "minutes", "code", "age", "member"],
        "left_out": {
            "empty": "nothing but gaps",
            "note": "3,000 different texts",
            "shop": "always the same",
            "paid_at": "a time; derive numbers from it, such as the hour",
        },
    }


SOURCES = {
    "sample": [],
    "files": ["--from", "visits", "--label", "bought", "--time", "paid_at"],
    "query": ["--sql", "sqlite:///shop.db", "--query", "visits.sql", "--label", "bought"],
    "bounded_query": ["--sql", "sqlite:///shop.db", "--query", "month.sql", "--label", "bought"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_file_is_tidy_and_what_the_router_takes(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_folder(tmp_path / "visits", ROWS.rename(columns={"age": "the 'age' of " + "somebody " * 15}))
    database(tmp_path)
    long = f"-- {'a remark that is longer than a line ' * 4}\nSELECT * FROM visits"
    (tmp_path / "visits.sql").write_text(f"{long};\n")
    (tmp_path / "month.sql").write_text("SELECT * FROM visits WHERE started_at >= :start AND started_at < :end")
    written = write(tmp_path / f"tidy_{source}", monkeypatch, "my-shop", *SOURCES[source])
    assert written.result.exit_code == 0, written.result.output
    file = written.folder / "my_shop.py"
    assert not tidy(file)
    endpoint = written.endpoint
    models = {recipe.name: f"my-shop-{recipe.name}@1" for recipe in endpoint.recipes}
    documents.check_endpoint(msgspec.convert(endpoint.document(models), documents.Endpoint))
    assert endpoint.rollout is not None
    rollout = msgspec.convert(endpoint.rollout.document(endpoint.name, models["boosting"]), documents.Rollout)
    documents.check_rollout(rollout, kind="predict", output="probability")
    key = endpoint.data.keys[1] if endpoint.data.keys else ""
    rows = endpoint.data.datasets[0].build({}, key).frame
    endpoint.data.datasets[0].schema.validate(rows)
    assert len(rows) == {"sample": 10_000, "bounded_query": 28 * 48}.get(source, 3000)


def test_columns_that_some_files_lack_are_read_as_gaps_and_row_numbers_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "visits").mkdir()
    ROWS.iloc[:1000].drop(columns=["device", "member"]).to_csv(tmp_path / "visits" / "2024.csv", index=False)
    ROWS.iloc[1000:].to_csv(tmp_path / "visits" / "2025.csv")
    written = write(tmp_path / "lacking", monkeypatch, "shop", "--from", "visits", "--label", "bought")
    assert written.result.exit_code == 0, written.result.output
    assert "Unnamed: 0 (has no name, as a row number that pandas wrote)" in written.result.output
    dataset, features = written.endpoint.data.datasets[0], written.endpoint.features
    rows = pd.concat(dataset.build({}, key).frame for key in written.endpoint.data.keys[:3])
    dataset.schema.validate(rows)
    assert sorted(features) == ["age", "code", "device", "member", "minutes", "pages"]
    assert rows["device"].isna().sum() == rows["member"].isna().sum() == 1000


HEADER = (
    "a 'b' \"c\"",
    "it's",
    'the "x"',
    "Größe in €",
    "class",
    "1st",
    "x/y\\z",
    "two\nlines",
    "{x}",
    "",
    "x, y",
    "row_id",
)
UNSPEAKABLE = [name for name in HEADER if set(name) & {'"', "\\", "\n"}]
ODD_NAMES = ROWS[["bought"]].assign(
    **{name: np.random.default_rng(place).random(3000).round(2) for place, name in enumerate(HEADER)},
    **dict.fromkeys(("Bought", "CLASS", "month_start", "q" * 150), ROWS["pages"]),
    started_at=ROWS["started_at"],
)
"""Every value of `row_id` stands there many times."""


def tidy(file: Path) -> str:
    """What the linter and the formatter say of the file, as if it stood where the command writes it."""
    said = ""
    for command in (["check"], ["format", "--check"]):
        # So that our own packages count as such.
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", "orchestration/endpoints/x.py"]
        checked = subprocess.run(
            ruff, input=file.read_text(), cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        said += (checked.stdout + checked.stderr) * bool(checked.returncode)
    return said


def test_columns_of_any_name_come_as_far_as_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ODD_NAMES.to_csv(tmp_path / "odd.csv", index=False)
    written = write(tmp_path / "named_oddly", monkeypatch, "shop", "--from", "odd.csv", "--label", "bought", "--json")
    assert written.result.exit_code == 0, written.result.output
    described = msgspec.json.decode(written.result.output)
    assert described["features"] == [*(name for name in HEADER if name and name not in UNSPEAKABLE), "q" * 150]
    assert described["left_out"] == {
        "Unnamed: 10": "has no name, as a row number that pandas wrote",
        "Bought": "differs from 'bought' in capitals only: give it another name",
        "CLASS": "differs from 'class' in capitals only: give it another name",
        **dict.fromkeys(
            UNSPEAKABLE, "requests cannot carry quotes, backslashes and line breaks in its name: give it another one"
        ),
        "month_start": "a name that the lake needs itself: give it another one",
    }
    assert not tidy(written.folder / "shop.py")
    endpoint = written.endpoint._replace(recipes=written.endpoint.recipes[:1])
    root = tmp_path / "var"
    settings = Settings(database=f"sqlite:///{root}/turnout.db", registry=root / "registry", lake=root / "lake")
    with dg.DagsterInstance.ephemeral() as instance:
        made, failed = refresh(build(settings, (endpoint,)), instance, Lake(settings.lake), endpoint)
    assert (made[-1], failed) == ("shop_logistic", {})


def test_parquet_of_any_type_is_sorted_by_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = range(3000)
    columns = {
        "bought": pa.array([str(number % 2 == 0) for number in numbers]).dictionary_encode(),
        "device": pa.array(ROWS["device"]).dictionary_encode(),
        "level": pa.DictionaryArray.from_arrays(pa.array([n % 3 or None for n in numbers], pa.int8()), [10, 20, 30]),
        "price": pa.array([Decimal(number % 50) / 4 for number in numbers], pa.decimal128(10, 2)),
        "discount": pa.array([Decimal(number % 50) if number % 4 else None for number in numbers]),
        "member": pa.array([number % 3 == 0 for number in numbers]),
        "known": pa.array([number % 3 == 0 if number % 5 else None for number in numbers]),
        "count": pa.array([number if number % 4 else None for number in numbers]),
        "large": pa.array([2**63 + number for number in numbers], pa.uint64()),
        "born": pa.array([date(2000, 1, 1)] * 2999 + [None]),
        "at": pa.array(visits()["started_at"].head(3000).dt.tz_convert("Europe/Berlin")),
        "list": pa.array([[number] for number in numbers]),
        "bytes": pa.array([b"x"] * 3000),
        "clock": pa.array([time(number % 24) for number in numbers]),
        "took": pa.array([timedelta(hours=number) for number in numbers]),
        "gaps": pa.nulls(3000),
    }
    frame = pd.DataFrame({"visit_id": [f"v{number}" for number in numbers]}).set_index("visit_id")
    described = pa.Table.from_pandas(frame).schema.metadata
    table = pa.table({**columns, "visit_id": pa.array(frame.index)}).replace_schema_metadata(described)
    pq.write_table(table, tmp_path / "visits.parquet")
    written = write(tmp_path / "typed", monkeypatch, "shop", "--from", "visits.parquet", "--label", "bought", "--json")
    assert written.result.exit_code == 0, written.result.output
    found = msgspec.json.decode(written.result.output)
    assert found["features"] == ["device", "level", "price", "discount", "member", "known", "count", "large"]
    assert (found["row_key"], found["time"]) == ("visit_id", "at")
    assert found["left_out"] == {
        "list": "holds mixed values",
        "bytes": "holds bytes values",
        "clock": "holds time values",
        "took": "holds timedelta64 values",
        "gaps": "nothing but gaps",
        "born": "a time; derive numbers from it, such as the hour",
    }
    dataset = written.endpoint.data.datasets[0]
    january = dataset.schema.validate(dataset.build({}, "2025-01-01").frame)
    # 2025 began an hour earlier in Berlin.
    assert january["at"].min() == pd.Timestamp("2025-01-01", tz="UTC")
    assert set(january["device"]) == {"laptop", "phone", "tablet"}
    assert january["level"].isna().any()
    assert january["large"].max() >= 2**63


@pytest.mark.parametrize(
    ("values", "left_out"),
    [
        (["01/31/2025", "02/28/2025"], "looks like dates: write them as 2025-01-31"),
        (["31.01.2025 12:30", "28.02.2025 12:30"], "looks like dates: write them as 2025-01-31"),
        (["31-01-25", "28-02-25"], "looks like dates: write them as 2025-01-31"),
        (["inf", "1.5"], "holds infinite numbers"),
        (["1e400", "1.5"], "holds infinite numbers"),
        (["2025-01-31", ""], "a time; derive numbers from it, such as the hour"),
    ],
)
def test_values_that_models_cannot_learn_from_are_left_out(
    values: list[str], left_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROWS[["bought", "pages"]].assign(odd=values * 1500).to_csv(tmp_path / "odd.csv", index=False)
    folder = tmp_path / f"odd_{abs(hash(left_out))}"
    written = write(folder, monkeypatch, "shop", "--from", "odd.csv", "--label", "bought", "--json")
    found = msgspec.json.decode(written.result.output)
    assert (found["features"], found["left_out"]) == (["pages"], {"odd": left_out})


def test_numbers_of_any_size_are_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ROWS[["bought"]].assign(large=[str(10**20 + n) for n in range(3000)]).to_csv(tmp_path / "large.csv", index=False)
    written = write(tmp_path / "large", monkeypatch, "shop", "--from", "large.csv", "--label", "bought")
    assert written.endpoint.features == ("large",)
    assert written.endpoint.data.datasets[0].build({}, "").frame["large"].max() >= 1e20


@pytest.mark.parametrize("texts", [["10.04.11", "10.04.12"], ["1-2", "3-4"], ["4/4/4", "5/5/5"]])
def test_texts_that_only_resemble_dates_are_features(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ROWS[["bought"]].assign(version=texts * 1500).to_csv(tmp_path / "odd.csv", index=False)
    folder = tmp_path / f"like_{texts[0].replace('.', '_').replace('/', '_').replace('-', '_')}"
    written = write(folder, monkeypatch, "shop", "--from", "odd.csv", "--label", "bought")
    assert written.endpoint.features == ("version",)


def test_times_to_come_are_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = ROWS.assign(started_at=ROWS["started_at"].str.replace("2025-", "2125-"))
    later.to_csv(tmp_path / "later.csv", index=False)
    written = write(tmp_path / "to_come", monkeypatch, "shop", "--from", "later.csv", "--label", "bought", "--json")
    assert msgspec.json.decode(written.result.output)["every"] is None
    assert len(written.endpoint.data.datasets[0].build({}, "").frame) == 3000


@pytest.fixture
def live(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A router on the site's registry, and commands that find the site's endpoint, instance and settings."""
    settings = Settings(
        database=f"sqlite:///{tmp_path}/ledger.db", registry=site.registry.root, spool=tmp_path / "spool"
    )
    for variable, value in {"REGISTRY": site.registry.root, "LAKE": site.lake.root}.items():
        monkeypatch.setenv(f"TURNOUT_{variable}", str(value))
    monkeypatch.setattr("orchestration.commands.explaining.discover", lambda: (site.endpoint,))
    for command in ("deploy", "materialize"):
        monkeypatch.setattr(f"orchestration.commands.{command}.local_instance", lambda: nullcontext(site.instance))
    # The registry's models are real ones.
    monkeypatch.setattr("tests.router.servers.load_small", load)
    with serving(settings) as url:
        monkeypatch.setenv("TURNOUT_URL", url)
        yield url


def test_commands_lead_from_materialized_to_decided(site: Site, live: str) -> None:
    newest = f"shop-logistic@{site.registry.versions('shop-logistic')[-1]}"
    materialized = CliRunner().invoke(materialize, ["shop", "--json"])
    assert materialized.exit_code == 0, materialized.output
    found = msgspec.json.decode(materialized.stdout)
    assert (found["materialized"], [each["model"] for each in found["models"]]) == ([], [newest])
    deployed = CliRunner().invoke(deploy, ["shop"])
    assert deployed.exit_code == 0, deployed.output
    assert deployed.output.startswith(f"shop is served by {newest}\n")
    assert f'curl -s {live}/v1/endpoints/shop/predict -d \'{{"unit":"somebody","inputs":{{' in deployed.output
    for accepted, duplicate in ((30, 0), (0, 30)):
        replayed = CliRunner().invoke(replay, ["shop", "--rows", "30", "--per-second", "1000", "--json"])
        assert replayed.exit_code == 0, replayed.output
        counts = msgspec.json.decode(replayed.stdout)
        assert (counts["requests"], counts["decisions"], counts["accepted"]) == (30, 30, accepted)
        assert counts["duplicate"] == duplicate + counts["sent_twice"]


POOR = base_rate("device")
BROKEN = base_rate("moon")._replace(name="broken")
"""A feature that there is not."""
BESIDE = Experiment(
    name="beside",
    arms=(("control", "logistic"), ("poor", "base_rate")),
    allocation={"kind": "split", "weights": {"control": 0.5, "poor": 0.5}},
    metrics=({"name": "bought", "kind": "binary", "direction": "increase", "role": "primary"},),
)
UNREGISTERED = {"shop-base-rate", "shop-broken"}


@pytest.fixture
def failing(site: Site, live: str, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """The site's endpoint, two of whose three candidates cannot be registered: one is worse, and one cannot train."""
    endpoint = site.endpoint._replace(recipes=(BROKEN, POOR, *site.endpoint.recipes))
    monkeypatch.setattr("orchestration.commands.explaining.discover", lambda: (endpoint,))
    return endpoint


def test_candidates_that_fail_do_not_keep_the_others_from_being_registered(site: Site, failing: Endpoint) -> None:
    for _ in range(2):
        said = CliRunner().invoke(materialize, ["shop"])
        assert said.exit_code == 0, said.output
        lines = [line for line in said.stdout.splitlines() if " not registered: " in line]
        assert lines[0].startswith("shop-broken not registered: shop_broken_candidate: models.errors.InvalidSample: ")
        assert lines[1].startswith("shop-base-rate not registered: not_worse_than_champion: worse: log_loss differs ")
        assert f"shop-logistic@{site.registry.versions('shop-logistic')[-1]}" in said.stdout
        assert said.stdout.endswith("turnout deploy shop\n")
        # What failed its check is not trained again to be told the same.
        assert Registry(site.lake.root / "staging").versions("shop-base-rate") == (1,)
    described = msgspec.json.decode(CliRunner().invoke(materialize, ["shop", "--json"]).stdout)
    assert set(described["not_registered"]) == UNREGISTERED
    assert len(described["models"]) == 1


def test_candidates_that_fail_are_left_out_of_what_is_deployed(site: Site, failing: Endpoint) -> None:
    CliRunner().invoke(materialize, ["shop"])
    deployed = CliRunner().invoke(deploy, ["shop"])
    assert deployed.exit_code == 0, deployed.output
    assert f"shop is served by shop-logistic@{site.registry.versions('shop-logistic')[-1]}\n" in deployed.output
    assert (
        "shop-base-rate is left out: shop_base_rate_candidate goes no further, since its checks "
        "not_worse_than_champion have not passed" in deployed.output
    )
    described = msgspec.json.decode(CliRunner().invoke(deploy, ["shop", "--json"]).stdout)
    assert (described["running"], described["failed"], set(described["left_out"])) == ({}, {}, UNREGISTERED)


def test_experiments_and_shadows_wait_for_their_candidates(
    live: str, failing: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = BESIDE._replace(name="alone", arms=(("control", "logistic"), ("poor", "logistic")))
    endpoint = failing._replace(rollout=None, shadows=("base_rate",), experiments=(BESIDE, alone))
    monkeypatch.setattr("orchestration.commands.explaining.discover", lambda: (endpoint,))
    deployed = CliRunner().invoke(deploy, ["shop"])
    assert deployed.exit_code == 0, deployed.output
    assert "alone: running\n" in deployed.output
    assert "shop-base-rate is left out: it has no version: see `turnout materialize shop`\n" in deployed.output
    assert "beside is left out: it needs shop-base-rate\n" in deployed.output
    with Turnout(live) as router:
        assert router.endpoint("shop")["document"]["shadows"] == []
        assert [each["document"]["name"] for each in router.experiments()] == ["alone"]


@pytest.mark.parametrize("rollout", [True, False])
def test_nothing_is_deployed_without_a_champion(
    live: str, failing: Endpoint, monkeypatch: pytest.MonkeyPatch, rollout: bool
) -> None:
    endpoint = failing._replace(champion="broken", recipes=(BROKEN,), rollout=failing.rollout if rollout else None)
    monkeypatch.setattr("orchestration.commands.explaining.discover", lambda: (endpoint,))
    missing = "no version of shop-broken, the champion of shop, is registered, so that nothing can serve it: correct "
    said = CliRunner().invoke(materialize, ["shop", "--json"])
    assert said.exit_code == 1
    assert set(msgspec.json.decode(said.stdout)["not_registered"]) == {"shop-broken"}
    assert missing in said.stderr
    deployed = CliRunner().invoke(deploy, ["shop"])
    assert deployed.exit_code == 1
    barred = f"no candidate of shop could be handed over to {live}: shop-broken: shop_broken_candidate goes no further"
    assert (barred if rollout else missing) in deployed.stderr


def copied(registry: Registry, model: ModelReference, name: str) -> ModelReference:
    manifest = registry.manifest(model)
    files = {file: registry.read(model, file) for file in manifest.files}
    return registry.publish(msgspec.structs.replace(manifest, name=name), files)


def test_what_the_router_refuses_is_said_last(
    site: Site, live: str, failing: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    CliRunner().invoke(materialize, ["shop"])
    assert CliRunner().invoke(deploy, ["shop"]).exit_code == 0
    assert failing.rollout is not None
    backwards = failing._replace(rollout=failing.rollout._replace(stages=failing.rollout.stages[::-1]))
    monkeypatch.setattr("orchestration.commands.explaining.discover", lambda: (backwards,))
    # Another version serves, so that the newest one has to be rolled out.
    with Turnout(live) as router:
        found = router.endpoint("shop")
        other = copied(site.registry, ModelReference.parse(found["document"]["champion"]), "elsewhere")
        router.replace_endpoint({**found["document"], "champion": str(other)}, found["revision"])
    refused = CliRunner().invoke(deploy, ["shop"])
    assert refused.exit_code == 1
    assert "shop-broken is left out: " in refused.stdout
    assert "shop-logistic: " in refused.stderr
    assert "correct the rollout plan" in refused.stderr


def test_candidates_go_to_the_router_that_is_named(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_URL", "http://127.0.0.1:9")
    deployed = CliRunner().invoke(deploy, ["shop", "--url", live])
    assert deployed.exit_code == 0, deployed.output
    with Turnout(live) as router:
        assert deployed.output.startswith(f"shop is served by {router.endpoint('shop')['document']['champion']}\n")


@pytest.mark.parametrize("command", [materialize, deploy, replay])
def test_name_that_nobody_declared_is_refused(command: click.Command) -> None:
    refused = CliRunner().invoke(command, ["shpo"])
    assert refused.exit_code == 1
    assert "no file declares the endpoint 'shpo', only flight-choice, flight-delay" in refused.output


def test_commands_are_those_of_turnout() -> None:
    found: dict[str, Any] = {entry.name: entry.value for entry in entry_points(group="turnout.commands")}
    assert {"new", "materialize", "deploy", "replay"} <= set(found)
