"""Sources: the same rows out of files, a database and a function, in declared types, and what is refused."""

import sqlite3
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from pyarrow import Table, parquet
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from orchestration.datasets.declaration import Data
from orchestration.errors import OrchestrationError, SourceInvalid, SourceUnavailable
from orchestration.sources import Files, Function, Query, from_source
from orchestration.sources.address import expanded, shown
from orchestration.sources.wanted import Source
from tests.databases import database as database_of

SCHEMA = pa.DataFrameSchema(
    {
        "visit": pa.Column(str, unique=True),
        "at": pa.Column("datetime64[us, UTC]"),
        "country": pa.Column(str, nullable=True),
        "price": pa.Column(float, nullable=True),
        "member": pa.Column(bool),
        "bought": pa.Column(float, pa.Check.isin([0, 1]), nullable=True),
    }
)
ALL = pd.DataFrame(
    {
        "visit": [f"{n:03}" for n in range(90)],
        "at": pd.date_range("2025-01-01", periods=90, freq="24h").strftime("%Y-%m-%d %H:%M:%S"),
        "country": ["NA", "", "DE"] * 30,
        "price": [1.5, None, 3] * 30,
        "member": ["yes", "no"] * 45,
        "bought": [0, 1, None] * 30,
    }
)
"""Three months of days: 31, 28 and 31 rows."""
QUERY = "SELECT * FROM visits WHERE at >= :start AND at < :end"


def data_of(source: Source, **more: Any) -> Data:
    return from_source(source, **{"name": "shop", "schema": SCHEMA, "label": "bought", "row_key": "visit", **more})


def rows_of(data: Data, key: str = "") -> pd.DataFrame:
    return data.datasets[0].build({}, key).frame


def csv(folder: Path, rows: pd.DataFrame = ALL, name: str = "visits.csv", **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / name, index=False, **options)
    return folder


def database(folder: Path, rows: pd.DataFrame = ALL) -> str:
    with sqlite3.connect(folder / "shop.db") as connection:
        rows.to_sql("visits", connection, index=False)
    connection.close()
    return f"sqlite:///{folder}/shop.db"


def of_span(start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    at = pd.to_datetime(ALL["at"])
    return ALL[(at >= start) & (at < end)]


def source(kind: str, folder: Path) -> Source:
    if kind == "function":
        return Function(of_span)
    if kind == "query":
        return Query(database(folder), QUERY)
    if kind == "csv":
        return Files(str(csv(folder / "data") / "visits.csv"))
    ALL.iloc[:50].to_parquet(folder / "first.parquet")
    csv(folder / "later", ALL.iloc[50:], sep=";")
    return Files(str(folder))


@pytest.mark.parametrize("kind", ["csv", "folder", "query", "function"])
def test_source_gives_a_month_in_the_declared_types(kind: str, tmp_path: Path) -> None:
    data = data_of(source(kind, tmp_path), time="at", every="month", start="2025-01-01")
    february = rows_of(data, "2025-02-01")
    assert sorted(february["visit"]) == [f"{n:03}" for n in range(31, 59)]
    assert {name: str(february[name].dtype) for name in february} == {
        "visit": "str",
        "at": "datetime64[us, UTC]",
        "country": "str",
        "price": "float64",
        "member": "bool",
        "bought": "float64",
    }
    assert set(february["country"].dropna()) == {"NA", "DE"}
    assert february["country"].isna().any()
    SCHEMA.validate(february)
    assert rows_of(data, "2025-07-01").dtypes.equals(february.dtypes)


def test_day_is_read_alone() -> None:
    data = data_of(Function(of_span), time="at", every="day", start="2025-01-01")
    assert rows_of(data, "2025-03-05")["at"].tolist() == [pd.Timestamp("2025-03-05", tz="UTC")]
    assert data.keys[:2] == ["2025-01-01", "2025-01-02"]


def test_new_and_changed_files_are_read(tmp_path: Path) -> None:
    data = data_of(Files(str(csv(tmp_path / "data", ALL.iloc[:50]))))
    assert len(rows_of(data)) == 50
    csv(tmp_path / "data", ALL.iloc[50:80], "later.csv.gz")
    assert len(rows_of(data)) == 80
    csv(tmp_path / "data", ALL.iloc[50:], "later.csv.gz")
    assert len(rows_of(data)) == 90


def test_file_without_a_column_that_may_be_missing_has_gaps_there(tmp_path: Path) -> None:
    csv(tmp_path / "data", ALL.iloc[:50].drop(columns=["price", "country"]), "old.csv")
    csv(tmp_path / "data", ALL.iloc[50:], "new.csv")
    rows = rows_of(data_of(Files(str(tmp_path / "data")))).set_index("visit").sort_index()
    assert rows[["price", "country"]].iloc[:50].isna().all(axis=None)
    assert rows["price"].iloc[50:].notna().any()
    SCHEMA.validate(rows.reset_index())


def test_columns_that_are_numbered_in_parquet_are_named_by_their_numbers(tmp_path: Path) -> None:
    ALL.set_axis(range(6), axis="columns").to_parquet(tmp_path / "all.parquet")
    schema = SCHEMA.rename_columns({name: str(number) for number, name in enumerate(map(str, ALL))})
    rows = rows_of(data_of(Files(str(tmp_path)), schema=schema, label="5", row_key="0"))
    assert rows["0"].tolist() == ALL["visit"].tolist()


def test_folder_is_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv(tmp_path / "data")
    csv(tmp_path / "data", name="_unfinished.csv")
    monkeypatch.chdir(tmp_path / "data")
    assert len(rows_of(data_of(Files(".")))) == 90


def test_rows_without_key_get_one_that_does_not_depend_on_their_order() -> None:
    twice = pd.concat([ALL, ALL.iloc[:3]])
    keys = [
        rows_of(data_of(Function(lambda rows=rows: rows), row_key=None))["row_id"]
        for rows in (twice, twice.sample(frac=1, random_state=1))
    ]
    assert keys[0].is_unique
    assert set(keys[0]) == set(keys[1])


TEXTS = pa.DataFrameSchema(
    {
        "at": pa.Column("datetime64[us, UTC]"),
        "code": pa.Column(str, nullable=True),
        "bought": pa.Column(float, nullable=True),
    }
)
CODES: dict[str, tuple[list[Any], list[Any], list[str], list[str]]] = {
    # Values of January and of February, and as which texts they come.
    "whole": ([1, 2, 3], [1, None, 2], ["1", "2", "3"], ["1", "2"]),
    "fractions": ([1.0, 2.0], [1.0, 2.5, None], ["1", "2"], ["1", "2.5"]),
    "large": ([2**53 + 1, 1], [2**53 + 1, None], [str(2**53 + 1), "1"], [str(2**53 + 1)]),
    "days": (
        [pd.Timestamp("2025-03-04"), pd.Timestamp("2025-03-05")],
        [pd.Timestamp("2025-03-04"), pd.Timestamp("2025-03-05 12:30"), None],
        ["2025-03-04 00:00:00", "2025-03-05 00:00:00"],
        ["2025-03-04 00:00:00", "2025-03-05 12:30:00"],
    ),
    "truths": ([True, False], [True, None], ["True", "False"], ["True"]),
}


def columns_of_codes(what: str) -> pd.DataFrame:
    january, february, _, _ = CODES[what]
    months = ["2025-01-03 00:00:00"] * len(january) + ["2025-02-03 00:00:00"] * len(february)
    return pd.DataFrame({"at": months, "code": pd.Series([*january, *february], dtype="object"), "bought": 1.0})


def source_of_codes(kind: str, what: str, folder: Path) -> Source:
    rows = columns_of_codes(what)
    january = rows["at"] < "2025-02"
    parts = [rows[january], rows[~january]]
    if kind == "query":
        return Query(database(folder, rows), QUERY)
    if kind == "parquet":
        for number, part in enumerate(parts):
            parquet.write_table(Table.from_pylist(part.to_dict("records")), folder / f"{number}.parquet")
        return Files(str(folder))
    return Function(lambda start, end: parts[start > pd.Timestamp("2025-01-01")].infer_objects())


# SQLite has no times and truths, and pandas no large whole numbers beside gaps.
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        *((what, "query") for what in ("whole", "fractions", "large")),
        *((what, "parquet") for what in CODES),
        *((what, "function") for what in CODES if what != "large"),
    ],
)
def test_text_of_a_value_is_the_same_in_every_month(what: str, kind: str, tmp_path: Path) -> None:
    data = data_of(source_of_codes(kind, what, tmp_path), schema=TEXTS, row_key=None, **MONTHLY)
    for month, expected in zip(("2025-01-01", "2025-02-01"), CODES[what][2:], strict=True):
        assert rows_of(data, month)["code"].dropna().tolist() == expected


def test_column_that_happens_to_be_called_like_a_made_key_is_none() -> None:
    schema = SCHEMA.add_columns({"row_id": pa.Column(int)})
    data = data_of(Function(lambda: ALL.assign(row_id=1)), schema=schema, row_key=None)
    assert data.row_key == "row_id_"
    assert rows_of(data)["row_id_"].is_unique
    assert set(rows_of(data)["row_id"]) == {1}


def split_of(data: Data, rows: pd.DataFrame) -> list[Sequence[str]]:
    cuts = (data.train.cut, data.validation.cut)
    return [cut(rows)["visit"].tolist() for cut in cuts if cut]


def test_last_rows_validate_and_rows_of_one_moment_stay_together() -> None:
    data = data_of(Function(of_span), time="at", validation_share=0.2)
    rows = pd.DataFrame({"visit": list("badcfe"), "at": pd.to_datetime([1, 2, 2, 3, 4, 4], unit="D")})
    assert split_of(data, rows.sample(frac=1, random_state=1)) == [["b", "a", "d", "c"], ["e", "f"]]


def test_hash_of_the_key_splits_rows_without_time() -> None:
    data = data_of(Function(of_span), validation_share=0.25)
    rows = pd.DataFrame({"visit": [f"v{n}" for n in range(4000)]})
    train, validation = split_of(data, rows)
    assert sorted([*train, *validation]) == sorted(rows["visit"])
    assert 0.22 < len(validation) / len(rows) < 0.28
    assert split_of(data, rows.iloc[::2])[1] == [key for key in validation if int(key[1:]) % 2 == 0]
    assert abs(np.corrcoef(np.arange(len(train)), [int(key[1:]) for key in train])[0, 1]) < 0.05


def fails() -> pd.DataFrame:
    raise KeyError("no such table")


def too_much(start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    return ALL


MONTHLY = {"time": "at", "every": "month", "start": "2025-01-01"}
REFUSED: dict[str, tuple[Any, dict[str, Any], type[OrchestrationError], str]] = {
    "no folder": (lambda _: Files("/nowhere"), {}, SourceUnavailable, "/nowhere does not exist"),
    "no file": (lambda folder: Files(str(folder)), {}, SourceUnavailable, "has no file that ends in .csv, .csv.gz"),
    "no such kind of file": (
        lambda folder: Files(str(csv(folder, name="visits.txt") / "visits.txt")),
        {},
        SourceUnavailable,
        "visits.txt has no file that ends in",
    ),
    "column that only some files have": (
        lambda folder: Files(str(csv(csv(folder), ALL.drop(columns="member"), "old.csv"))),
        {},
        SourceInvalid,
        "old.csv has no column 'member', only visit, at, country, price, bought: correct the source, or the schema",
    ),
    "column that no file has": (
        lambda folder: Files(str(csv(csv(folder, ALL.drop(columns="price")), ALL.drop(columns="price"), "old.csv"))),
        {},
        SourceInvalid,
        "has no column 'price', only visit, at, country, member, bought: correct the source, or the schema",
    ),
    "no column": (
        lambda folder: Files(str(csv(folder, ALL.drop(columns="price")))),
        {},
        SourceInvalid,
        "visits.csv has no column 'price', only visit, at, country, member, bought: correct the source, or the schema",
    ),
    "no number": (
        lambda folder: Files(str(csv(folder, ALL.assign(price="cheap")))),
        {},
        SourceInvalid,
        "column 'price' does not hold float64 only: Unable to parse string 'cheap'",
    ),
    "no whole number": (
        lambda folder: Files(str(csv(folder))),
        {"schema": pa.DataFrameSchema({"visit": pa.Column(str), "price": pa.Column(int), "bought": pa.Column(float)})},
        SourceInvalid,
        "column 'price' does not hold int64 only: Cannot convert non-finite values",
    ),
    "fraction": (
        lambda folder: Files(str(csv(folder, ALL.fillna({"price": 3})))),
        {"schema": pa.DataFrameSchema({"visit": pa.Column(str), "price": pa.Column(int), "bought": pa.Column(float)})},
        SourceInvalid,
        "column 'price' does not hold int64 only: such as 1.5; correct the source",
    ),
    "times as numbers": (
        lambda _: Function(lambda: ALL.assign(price=pd.Timestamp("2025-01-01"))),
        {},
        SourceInvalid,
        "column 'price' does not hold float64 only: these are times; correct the source",
    ),
    "no truth": (
        lambda folder: Files(str(csv(folder, ALL.assign(member="")))),
        {},
        SourceInvalid,
        "column 'member' does not hold bool only: a value is missing, or neither true nor false",
    ),
    "no CSV": (
        lambda folder: Files(str(csv(folder, ALL.assign(country="ß"), encoding="latin-1"))),
        {},
        SourceUnavailable,
        "visits.csv cannot be read: 'utf-8' codec can't decode",
    ),
    "no table": (
        lambda folder: Query(f"sqlite:///{folder}/empty.db", "SELECT * FROM visits"),
        {},
        SourceUnavailable,
        "failed: no such table: visits; correct the query, or the address",
    ),
    "no variable": (
        lambda _: Query("postgresql://shop:${SHOP_PASSWORD}@db/shop", QUERY),
        {},
        SourceUnavailable,
        "postgresql://shop:***@db/shop needs the environment variable SHOP_PASSWORD: set it",
    ),
    "dates as texts": (
        lambda folder: Query(database(folder, ALL.assign(at=ALL["at"].str[:10])), QUERY),
        MONTHLY,
        SourceInvalid,
        "gave 1 of 31 rows outside, such as 2025-02-01 00:00:00+00:00: write WHERE time >= :start",
    ),
    "failing function": (
        lambda _: Function(fails),
        {},
        SourceUnavailable,
        "failed: KeyError: 'no such table'; correct it",
    ),
    "function for all time": (
        lambda _: Function(too_much),
        MONTHLY,
        SourceInvalid,
        "too_much(), asked for 'at' from 2025-01-01 to before 2025-02-01, gave 59 of 90 rows outside",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_data_is_refused(what: str, tmp_path: Path) -> None:
    made, more, kind, message = REFUSED[what]
    with pytest.raises(kind) as refused:
        rows_of(data_of(made(tmp_path), **more), "2025-01-01" if "every" in more else "")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


FOUR_HOURS = """
CREATE TABLE visits AS
SELECT n::text AS visit, ('2025-01-31 22:00'::timestamp + n * interval '1 h')::KIND AS at, NULL AS country,
       1.5::numeric AS price, n > 2 AS member, 1 AS bought
FROM generate_series(0, 3) AS n
"""


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_months_are_in_utc_whatever_the_zone_of_the_server(kind: str, tmp_path: Path) -> None:
    with database_of("postgresql", tmp_path) as url:
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET TIME ZONE 'UTC'")
            connection.exec_driver_sql(FOUR_HOURS.replace("KIND", kind))
            connection.exec_driver_sql(f"ALTER DATABASE \"{engine.url.database}\" SET timezone TO 'Asia/Tokyo'")
        rows = rows_of(data_of(Query(url, QUERY), **MONTHLY), "2025-02-01")
    assert rows["visit"].tolist() == ["2", "3"]
    assert rows["at"].min() == pd.Timestamp("2025-02-01", tz="UTC")
    assert rows["price"].tolist() == [1.5, 1.5]
    assert rows["member"].tolist() == [False, True]


def test_password_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FOLDER", str(tmp_path))
    database(tmp_path)
    data = data_of(Query("sqlite:///${SHOP_FOLDER}/shop.db", "SELECT * FROM visits"))
    assert len(rows_of(data)) == 90


PASSWORD = "p@ss%20w:o/r?d#&[x]"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (
            "postgresql+psycopg://${WHO}:${PASSWORD}@${HOST}:${PORT}/${PLACE}?sslmode=${MODE}",
            URL.create("postgresql+psycopg", "m@x", PASSWORD, "db", 5433, "a/b?", {"sslmode": "require"}),
        ),
        (
            "mysql+pymysql://me:%40${PASSWORD}@${HOST}/x%20y",
            URL.create("mysql+pymysql", "me", f"@{PASSWORD}", "db", None, "x y"),
        ),
        ("${ADDRESS}", URL.create("postgresql+psycopg", "me", PASSWORD, "db", database="shop")),
    ],
)
def test_variable_is_one_part_of_the_address_whatever_it_holds(
    address: str, url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = URL.create("postgresql+psycopg", "me", PASSWORD, "db", database="shop")
    values = {"WHO": "m@x", "PASSWORD": PASSWORD, "HOST": "db", "PORT": "5433", "PLACE": "a/b?", "MODE": "require"}
    for name, value in {**values, "ADDRESS": whole.render_as_string(hide_password=False)}.items():
        monkeypatch.setenv(name, value)
    assert expanded(address) == url


SHOWN = {
    "postgresql+psycopg://me:${P}@${HOST}:${PORT}/shop": "postgresql+psycopg://me:***@${HOST}:${PORT}/shop",
    "postgresql://db/shop?user=me&password=hunter2": "postgresql://db/shop",
    "mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2": "mssql+pyodbc:///",
    "${ADDRESS}": "${ADDRESS}",
    "sqlite:///shop.db": "sqlite:///shop.db",
    "postgresql://me:hunt@er2@db/shop": "an address that cannot be read",
    "postgresql://me:hunter2": "an address that cannot be read",
    "shop.db": "an address that cannot be read",
}


@pytest.mark.parametrize("address", SHOWN)
def test_address_is_shown_without_passwords(address: str) -> None:
    assert shown(address) == SHOWN[address]


LEAKS = {
    # Each in the place of ${P}; the drivers and SQLAlchemy repeat some of them in what they raise.
    "sqlite://me@host/x?password=${P}": "hunter2",
    "postgresql+psycopg://me:${P}@127.0.0.1:1/shop": "hunt@er2",
    "postgresql+psycopg://127.0.0.1:1/shop?${P}=1&sslpassword=${P}": "hunter2",
    "postgresql+psycopg://127.0.0.1:${P}/shop": "hunter2",
    "${P}": "postgresql+psycopg://me:hunt@er2@127.0.0.1:1/shop",
    "${P}/shop": "postgresql+psycopg://me:hunter2@127.0.0.1",
    "postgresql+psycopg://me:hunt@er2@127.0.0.1:1/${P}": "shop",
    "postgresql+psycopg://me:hunter2": "",
    "postgresql+nothing://me:${P}@127.0.0.1:1/shop": "hunter2",
}


@pytest.mark.parametrize("address", LEAKS)
def test_no_part_of_a_password_is_in_what_is_said_of_a_failure(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", LEAKS[address])
    with pytest.raises(SourceUnavailable) as refused:
        rows_of(data_of(Query(address, "SELECT 1")))
    said = "".join(traceback.format_exception(refused.value))
    # As Dagster stores it: with all errors that led to this one.
    assert refused.value.__context__ is None
    assert "hunt" not in said
    assert "er2" not in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label": "sold"}, "the schema has no column 'sold', only visit, at"),
        ({"time": "when"}, "the schema has no column 'when'"),
        ({"every": "month", "time": "at"}, 'every="month" also needs time, a column, and start'),
        (
            {"schema": SCHEMA.add_columns({"month_start": pa.Column(str)}), **MONTHLY},
            "the lake needs the name 'month_start' itself: rename that column in the source",
        ),
        (
            {"schema": SCHEMA.add_columns({"Bought": pa.Column(float)})},
            "'bought' and 'Bought' differ in capitals only: rename one of these columns in the source",
        ),
        ({"schema": pa.DataFrameSchema({"bought": pa.Column()})}, "the schema gives no type for 'bought'"),
    ],
)
def test_declaration_that_contradicts_itself_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(Function(of_span), **more)
