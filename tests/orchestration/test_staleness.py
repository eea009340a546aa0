"""Bringing assets up to date, on a graph shaped like the real one: months, then tables cut from them, then models."""

from collections.abc import Iterator, Mapping

import dagster as dg
import pytest

from orchestration.errors import MaterializationFailed
from orchestration.staleness import Progress, materialize_stale

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01")
JANUARY, FEBRUARY = "2013-01-01", "2013-02-01"
EVERYTHING = dg.AssetSelection.all()
FIRST_RUN = [
    "airports",
    f"raw[{JANUARY}]", f"clean[{JANUARY}]",
    f"raw[{FEBRUARY}]", f"clean[{FEBRUARY}]",
    "train",
    "fitted_a", "a",
    "fitted_b", "b",
]  # fmt: skip


def graph(
    code: Mapping[str, str] | None = None, data: Mapping[str, str] | None = None, *, sound: bool = True
) -> dg.Definitions:
    """The assets with given code versions and data versions (both "1" unless told), and a check of `clean`."""

    def made(
        name: str, deps: list[dg.AssetDep | str], partitions: dg.PartitionsDefinition | None = None
    ) -> dg.AssetsDefinition:
        version = (code or {}).get(name, "1")

        @dg.asset(name=name, deps=deps, partitions_def=partitions, code_version=version)
        def asset() -> dg.MaterializeResult[None]:
            return dg.MaterializeResult(data_version=dg.DataVersion((data or {}).get(name, "1")))

        return asset

    @dg.asset_check(asset="clean", blocking=True)
    def holds() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=sound, description=None if sound else "a value is out of its limits")

    previous = dg.TimeWindowPartitionMapping(start_offset=-1)
    both = dg.SpecificPartitionsPartitionMapping([JANUARY, FEBRUARY])
    return dg.Definitions(
        assets=[
            made("airports", []),
            made("raw", [], MONTHS),
            made("clean", [dg.AssetDep("raw", partition_mapping=previous), "airports"], MONTHS),
            made("train", [dg.AssetDep("clean", partition_mapping=both)]),
            made("fitted_a", ["train"]),
            made("a", ["fitted_a"]),
            made("fitted_b", ["train"]),
            made("b", ["fitted_b"]),
        ],
        asset_checks=[holds],
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def refreshed(instance: dg.DagsterInstance, definitions: dg.Definitions) -> list[str]:
    return materialize_stale(definitions, instance, EVERYTHING, partitions={JANUARY, FEBRUARY})


def test_first_run_makes_everything_in_order(instance: dg.DagsterInstance) -> None:
    assert refreshed(instance, graph()) == FIRST_RUN
    assert instance.get_runs_count() == 6


def test_second_run_makes_nothing(instance: dg.DagsterInstance) -> None:
    refreshed(instance, graph())
    assert refreshed(instance, graph()) == []


def test_changed_recipe_remakes_only_that_candidate(instance: dg.DagsterInstance) -> None:
    refreshed(instance, graph())
    assert refreshed(instance, graph(code={"fitted_a": "2"}, data={"fitted_a": "2"})) == ["fitted_a", "a"]


def test_changed_code_with_same_data_stops_there(instance: dg.DagsterInstance) -> None:
    refreshed(instance, graph())
    changed = graph(code={"clean": "2"})
    assert refreshed(instance, changed) == [f"clean[{JANUARY}]", f"clean[{FEBRUARY}]"]
    assert refreshed(instance, changed) == []


def test_changed_data_goes_all_the_way_down(instance: dg.DagsterInstance) -> None:
    refreshed(instance, graph())
    versions = dict.fromkeys(("raw", "clean", "train", "fitted_a", "a", "fitted_b", "b"), "2")
    assert refreshed(instance, graph(code={"raw": "2"}, data=versions)) == FIRST_RUN[1:]


def test_new_month_is_missing(instance: dg.DagsterInstance) -> None:
    refreshed(instance, graph())
    made = materialize_stale(graph(), instance, EVERYTHING, partitions={JANUARY, FEBRUARY, "2013-03-01"})
    assert made == ["raw[2013-03-01]", "clean[2013-03-01]"]


def test_failed_check_stops_and_is_not_forgotten(instance: dg.DagsterInstance) -> None:
    with pytest.raises(MaterializationFailed, match="check holds of clean: a value is out of its limits"):
        refreshed(instance, graph(sound=False))
    with pytest.raises(MaterializationFailed, match=r"materializing clean\[2013-01-01\] failed"):
        refreshed(instance, graph(sound=False))
    assert refreshed(instance, graph()) == FIRST_RUN[2:]


def test_failed_step_names_its_cause(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def broken() -> None:
        raise ValueError("the disk is full")

    with pytest.raises(MaterializationFailed, match="broken: ValueError: the disk is full"):
        materialize_stale(dg.Definitions([broken]), instance, EVERYTHING)


def test_progress_counts_up_to_the_whole(instance: dg.DagsterInstance) -> None:
    seen: list[Progress] = []
    materialize_stale(graph(), instance, EVERYTHING, partitions={JANUARY, FEBRUARY}, progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == len(FIRST_RUN)
    assert Progress(("raw", "clean"), JANUARY, 1, 10) in seen


def test_selection_and_partitions_limit_the_work(instance: dg.DagsterInstance) -> None:
    made = materialize_stale(graph(), instance, dg.AssetSelection.assets("raw"), partitions={FEBRUARY})
    assert made == [f"raw[{FEBRUARY}]"]


def checked(*, sound: bool, lost: bool = False) -> tuple[dg.Definitions, list[str]]:
    """An asset with a check, which may find its files lost, and one made of it; the list has what was made."""
    made: list[str] = []

    @dg.asset(code_version="1")
    def fitted() -> dg.MaterializeResult[None]:
        made.append("fitted")
        return dg.MaterializeResult(data_version=dg.DataVersion("1"))

    @dg.asset(deps=[fitted], code_version="1")
    def registered() -> None:
        made.append("registered")

    @dg.asset_check(asset=fitted, blocking=True)
    def skill() -> dg.AssetCheckResult:
        if lost:
            raise FileNotFoundError("model.onnx")
        return dg.AssetCheckResult(passed=sound, description=None if sound else "no better than a coin")

    return dg.Definitions([fitted, registered], asset_checks=[skill]), made


def test_failed_check_is_run_again_without_what_it_checks(instance: dg.DagsterInstance) -> None:
    definitions, made = checked(sound=False)
    for what in ("materializing fitted, registered", "checking fitted"):
        with pytest.raises(MaterializationFailed, match=f"{what} failed: check skill of fitted: no better") as failed:
            materialize_stale(definitions, instance, EVERYTHING)
        assert failed.value.reasons == ("skill: no better than a coin",)
    assert made == ["fitted"]
    definitions, made = checked(sound=True)
    assert materialize_stale(definitions, instance, EVERYTHING) == ["registered"]
    assert made == ["registered"]
    assert materialize_stale(definitions, instance, EVERYTHING) == []


def test_what_cannot_be_checked_is_made_again(instance: dg.DagsterInstance) -> None:
    definitions, made = checked(sound=True, lost=True)
    for times in (1, 2):
        with pytest.raises(MaterializationFailed, match=r"fitted_skill: FileNotFoundError: model\.onnx"):
            materialize_stale(definitions, instance, EVERYTHING)
        assert made == ["fitted"] * times
