import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration import lake as lakes
from orchestration.content import content_hash
from orchestration.errors import LakeUnwritable, SchemaConflict, TableBusy, TableCorrupted, TableMissing
from orchestration.lake import Lake, Partition

JANUARY = Partition("month_start", "2013-01-01")
FEBRUARY = Partition("month_start", "2013-02-01")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def frame(values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(len(values))],
            "value": values,
            "at": pd.date_range("2013-01-01", periods=len(values), freq="h", tz="UTC"),
            "note": [None, *["n"] * (len(values) - 1)],
        }
    )


def test_same_content_makes_no_new_version(lake: Lake) -> None:
    first = lake.write_if_changed("t", frame([1, 2, 3]))
    assert lake.write_if_changed("t", frame([1, 2, 3])) == first
    assert DeltaTable(lake.path("t")).version() == 0


def test_changed_content_makes_a_new_version(lake: Lake) -> None:
    first = lake.write_if_changed("t", frame([1, 2, 3]))
    second = lake.write_if_changed("t", frame([1, 2, 4]))
    assert second.number == first.number + 1
    assert second.content_hash != first.content_hash
    assert lake.version("t") == second


def test_read_gives_back_rows_and_types(lake: Lake) -> None:
    lake.write_if_changed("t", frame([1.5, np.nan, 3]), JANUARY)
    pd.testing.assert_frame_equal(lake.read("t", JANUARY), frame([1.5, np.nan, 3]))


def test_partitions_are_replaced_one_by_one(lake: Lake) -> None:
    lake.write_if_changed("t", frame([1, 2]), JANUARY)
    lake.write_if_changed("t", frame([3, 4, 5]), FEBRUARY)
    lake.write_if_changed("t", frame([6]), JANUARY)
    assert lake.read("t", JANUARY)["value"].tolist() == [6]
    assert lake.read("t", FEBRUARY)["value"].tolist() == [3, 4, 5]
    assert lake.partitions("t") == ["2013-01-01", "2013-02-01"]
    assert lake.write_if_changed("t", frame([3, 4, 5]), FEBRUARY).number == 2


def test_added_column_keeps_other_partitions(lake: Lake) -> None:
    lake.write_if_changed("t", frame([1, 2]), JANUARY)
    wider = frame([3, 4]).assign(extra=[0.5, 0.6])
    written = lake.write_if_changed("t", wider, FEBRUARY)
    assert lake.read("t", JANUARY)["value"].tolist() == [1, 2]
    assert lake.read("t", FEBRUARY)["extra"].tolist() == [0.5, 0.6]
    assert lake.write_if_changed("t", wider, FEBRUARY) == written


def test_removed_column_still_makes_no_new_version(lake: Lake) -> None:
    lake.write_if_changed("t", frame([1, 2]), JANUARY)
    narrower = frame([1, 2]).drop(columns="note")
    written = lake.write_if_changed("t", narrower, JANUARY)
    assert written.number == 1
    assert lake.write_if_changed("t", narrower, JANUARY) == written


def test_empty_content_is_written_once(lake: Lake) -> None:
    empty = pa.table({"id": pa.array([], pa.string())})
    day = Partition("day", "2026-01-01")
    assert lake.write_if_changed("t", empty, day) == lake.write_if_changed("t", empty, day)


def test_changed_type_is_refused(lake: Lake) -> None:
    lake.write_if_changed("t", frame([1, 2]), JANUARY)
    with pytest.raises(SchemaConflict, match="delete that folder"):
        lake.write_if_changed("t", frame([1, 2]).assign(value=["x", "y"]), JANUARY)


def at_once(lake: Lake, partitions: Sequence[Partition | None]) -> list[Exception]:
    """Write rows to these parts of one table at the same time, and return what went wrong."""
    begin, failures = threading.Barrier(len(partitions)), list[Exception]()

    def write(number: int, partition: Partition | None) -> None:
        begin.wait()
        try:
            lake.write_if_changed("t", frame([float(number)] * 20_000), partition)
        except Exception as error:  # noqa: BLE001 (a thread's own are told nobody)
            failures.append(error)

    threads = [threading.Thread(target=write, args=each) for each in enumerate(partitions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.parametrize("part", [JANUARY, None])
def test_writers_of_one_part_take_turns(lake: Lake, part: Partition | None) -> None:
    lake.write_if_changed("t", frame([1, 2]), part)
    assert at_once(lake, [part] * 3) == []
    assert lake.read("t", part)["value"].nunique() == 1
    assert DeltaTable(lake.path("t")).version() == 3


def test_first_writers_of_a_table_keep_each_others_partitions(lake: Lake) -> None:
    months = [Partition("month_start", f"2013-0{month}-01") for month in range(1, 5)]
    assert at_once(lake, months) == []
    assert lake.partitions("t") == [month.value for month in months]


def test_table_that_others_keep_writing_is_not_to_be_deleted(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(*_: object, **__: object) -> None:
        raise CommitFailedError("a concurrent transaction added new data")

    monkeypatch.setattr(lakes, "write_deltalake", overtaken)
    monkeypatch.setattr(lakes, "_WAITS_S", (0, 0))
    with pytest.raises(
        TableBusy, match=r"table t, month_start 2013-01-01 .* of 2 times .* again once they have ended"
    ) as caught:
        lake.write_if_changed("t", frame([1]), JANUARY)
    assert "delete" not in str(caught.value)


def test_replaced_files_are_removed_and_the_present_ones_stay(lake: Lake) -> None:
    for value in (1, 2, 3):
        lake.write_if_changed("t", frame([value]), JANUARY)
    lake.write_if_changed("t", frame([4]), FEBRUARY)
    lake.remove_replaced("t", hours=1)
    assert len(list(lake.path("t").rglob("*.parquet"))) == 4
    lake.remove_replaced("t", hours=0)
    assert len(list(lake.path("t").rglob("*.parquet"))) == 2
    assert sorted(lake.read("t")["value"]) == [3, 4]


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(LakeUnwritable, match=f"cannot write table t to {tmp_path}/lake/t"):
        Lake(tmp_path / "lake").write_if_changed("t", frame([1]))


def test_missing_table_and_partition_say_what_to_do(lake: Lake) -> None:
    with pytest.raises(TableMissing, match="table t was never written: materialize it first"):
        lake.read("t")
    lake.write_if_changed("t", frame([1]), JANUARY)
    with pytest.raises(TableMissing, match="month_start 2013-02-01"):
        lake.read("t", FEBRUARY)


def damage_data(table: Path) -> None:
    next(table.rglob("*.parquet")).write_bytes(b"PAR1 no longer a table")


def remove_data(table: Path) -> None:
    next(table.rglob("*.parquet")).unlink()


def damage_log(table: Path) -> None:
    (table / "_delta_log" / "00000000000000000000.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("damage", [damage_data, remove_data, damage_log])
def test_corrupted_table_is_named(lake: Lake, damage: object) -> None:
    lake.write_if_changed("t", frame([1, 2]), JANUARY)
    assert callable(damage)
    damage(lake.path("t"))
    with pytest.raises(TableCorrupted, match=f"table t is damaged; delete {lake.path('t')}"):
        lake.read("t", JANUARY)
    with pytest.raises(TableCorrupted):
        lake.write_if_changed("t", frame([1, 2]), JANUARY)


rows = st.lists(
    st.tuples(
        st.text(max_size=5) | st.none(),
        st.floats(allow_nan=False, width=32) | st.none(),
        st.integers(-(2**40), 2**40),
    ),
    min_size=1,
    max_size=20,
)


def table_of(content: list[tuple[str | None, float | None, int]]) -> pa.Table:
    text, real, whole = zip(*content, strict=True)
    return pa.table({"text": pa.array(text, pa.string()), "real": pa.array(real, pa.float32()), "whole": whole})


@given(content=rows, data=st.data())
def test_content_hash_does_not_depend_on_order(
    content: list[tuple[str | None, float | None, int]], data: st.DataObject
) -> None:
    table = table_of(content)
    shuffled = table_of(data.draw(st.permutations(content))).select(["whole", "text", "real"])
    assert content_hash(table) == content_hash(shuffled)


@given(content=rows, position=st.integers(0, 100))
def test_content_hash_sees_every_value(content: list[tuple[str | None, float | None, int]], position: int) -> None:
    changed = list(content)
    text, real, whole = changed[position % len(changed)]
    changed[position % len(changed)] = (text, real, whole + 1)
    assert content_hash(table_of(content)) != content_hash(table_of(changed))


@given(content=rows)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_content_hash_survives_storage(
    tmp_path_factory: pytest.TempPathFactory, content: list[tuple[str | None, float | None, int]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    assert lake.write_if_changed("t", table_of(content)) == lake.version("t")


def test_content_hash_ignores_units_and_encodings() -> None:
    moments = pd.Series(pd.date_range("2013-01-01", periods=3, tz="UTC"))
    plain = pd.DataFrame({"at": moments.dt.as_unit("us"), "kind": ["a", "b", "a"]})
    other = pd.DataFrame({"at": moments.dt.as_unit("ms"), "kind": pd.Categorical(["a", "b", "a"])})
    assert content_hash(plain) == content_hash(other)


def test_content_hash_sees_types_and_names() -> None:
    hashes = {
        content_hash(pa.table({"a": pa.array([1, 2], pa.int64())})),
        content_hash(pa.table({"a": pa.array([1, 2], pa.int32())})),
        content_hash(pa.table({"b": pa.array([1, 2], pa.int64())})),
        content_hash(pa.table({"a": pa.array(["ab", "c"])})),
        content_hash(pa.table({"a": pa.array(["a", "bc"])})),
        content_hash(pa.table({"a": pa.array([1, None], pa.int64())})),
        content_hash(pa.table({"a": pa.array([None, 1], pa.int64())})),
    }
    assert len(hashes) == 6  # the last two are the same rows in another order
