"""What `turnout new endpoint` refuses, with what to do about it, and without writing anything."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from tests.orchestration.shops import ROWS, csv_folder, database, write


def few(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(bought=(rows.index < 10).astype(int))


REFUSED: dict[str, tuple[list[str], str]] = {
    "name": (["Shop!"], "'Shop!' is no name for an endpoint: use 1 to 32 small letters"),
    "keyword": (["class"], "'class' is no name for an endpoint"),
    "taken": (["taken"], "taken.py is there already: choose another name, or move it away"),
    "taken by data": (
        ["flights"],
        "'flights' is the name of data of the endpoint flight-choice already: choose another",
    ),
    "no folder": (["shop", "--from", "nowhere", "--label", "bought"], "nowhere does not exist"),
    "no label": (["shop", "--from", "visits"], "--label is missing: the column to predict"),
    "label without rows": (["shop", "--label", "bought"], "the sample has its own"),
    "label not there": (["shop", "--from", "visits", "--label", "sold"], "there is no column 'sold', only visit_id"),
    "label of many values": (
        ["shop", "--from", "visits", "--label", "device"],
        "the label 'device' holds laptop, phone, tablet: labels are 0 and 1",
    ),
    "rare label": (
        ["shop", "--from", "rare.csv", "--label", "bought"],
        "10 of 3000 rows have 'bought' = 1; models are",
    ),
    "label that outcomes cannot have": (
        ["shop", "--from", "capital.csv", "--label", "Was it bought?"],
        "outcomes will be named like the label, for which 'Was it bought?' will not do: rename that column in the "
        "source, to small letters, digits, - and _, such as was_it_bought",
    ),
    "label of the lake": (
        ["shop", "--from", "month.csv", "--label", "month_start"],
        "the lake needs the name 'month_start' itself: rename that column in the source",
    ),
    "label alone": (["shop", "--from", "alone.csv", "--label", "bought"], "no column could help to predict 'bought'"),
    "time not there": (
        ["shop", "--from", "visits", "--label", "bought", "--time", "age"],
        "'age' is no column of times without gaps, written as 2025-01-31 or 2025-01-31T12:30:00Z; such are: "
        "started_at, paid_at. Correct --time",
    ),
    "time written otherwise": (
        ["shop", "--from", "slashes.csv", "--label", "bought", "--time", "started_at"],
        "'started_at' is no column of times without gaps, written as 2025-01-31 or",
    ),
    "more values than names": (
        ["shop", "--from", "shifted.csv", "--label", "bought"],
        "shifted.csv cannot be read: its rows have more values than the header has names; correct the file",
    ),
    "half a file": (
        ["shop", "--from", "half.csv.gz", "--label", "bought"],
        "half.csv.gz cannot be read: Compressed file ended before the end-of-stream marker was reached",
    ),
    "nothing in the file": (["shop", "--from", "nothing.csv", "--label", "bought"], "nothing.csv cannot be read: No"),
    "column twice": (
        ["shop", "--sql", "sqlite:///shop.db", "--query", "twice.sql", "--label", "bought"],
        "the query on sqlite:///shop.db has the column 'pages' twice, so that it is unclear which is meant",
    ),
    "no rows": (
        ["shop", "--sql", "sqlite:///shop.db", "--query", "none.sql", "--label", "bought"],
        "0 of 0 rows have 'bought' = 0; models are trained on at least 20 of each: give more rows",
    ),
    "no answer": (
        ["shop", "--sql", "sqlite:///shop.db", "--query", "pragma.sql", "--label", "bought"],
        "the query on sqlite:///shop.db failed: This result object does not return rows",
    ),
    "two sources": (["shop", "--from", "visits", "--sql", "x", "--label", "bought"], "exclude each other"),
    "no query": (["shop", "--sql", "sqlite:///shop.db", "--label", "bought"], "--sql and --query belong together"),
    "password": (
        ["shop", "--sql", "postgresql+psycopg://me:secret@db/shop", "--query", "visits.sql", "--label", "bought"],
        "the address holds a password, which would stand in the file: write ${NAME} in its place",
    ),
    "password as an option": (
        ["shop", "--sql", "postgresql+psycopg://db/?password=secret", "--query", "visits.sql", "--label", "bought"],
        "the address holds a password, which would stand in the file: write ${NAME} in its place",
    ),
    "no address": (
        ["shop", "--sql", "postgresql://me:secret", "--query", "visits.sql", "--label", "bought"],
        "--sql: the address cannot be read as one of SQLAlchemy: write sqlite:///FILE",
    ),
    "no table": (
        ["shop", "--sql", "sqlite:///none.db", "--query", "visits.sql", "--label", "bought"],
        "the query on sqlite:///none.db failed: no such table: visits",
    ),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the refused calls ask for."""
    root = tmp_path_factory.mktemp("refused")
    csv_folder(root / "visits")
    few(ROWS).to_csv(root / "rare.csv", index=False)
    ROWS[["bought", "note"]].to_csv(root / "alone.csv", index=False)
    (root / "visits.sql").write_text("SELECT * FROM visits")
    (root / "twice.sql").write_text("SELECT bought, pages, minutes AS pages FROM visits")
    (root / "none.sql").write_text("SELECT * FROM visits WHERE 1 = 0")
    (root / "pragma.sql").write_text("PRAGMA foreign_keys = 1")
    ROWS.rename(columns={"bought": "Was it bought?"}).to_csv(root / "capital.csv", index=False)
    ROWS.rename(columns={"bought": "month_start"}).to_csv(root / "month.csv", index=False)
    (root / "slashes.csv").write_text(ROWS.head(100).to_csv(index=False).replace("2025-01-", "2025/01/"))
    (root / "shifted.csv").write_text("bought,pages\n" + "0,1,\n1,2,\n" * 50)
    (root / "half.csv.gz").write_bytes(gzip.compress(b"bought,pages\n" + b"0,1\n1,2\n" * 50)[:30])
    (root / "nothing.csv").touch()
    database(root)
    return root


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_declared_is_refused_and_nothing_written(
    what: str, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = REFUSED[what]
    folder = material / "declared"
    folder.mkdir(exist_ok=True)
    (folder / "taken.py").write_text("# mine")
    written = write(folder, monkeypatch, *arguments)
    assert written.result.exit_code != 0
    assert message in " ".join(written.result.output.split())
    assert "secret" not in written.result.output
    assert sorted(path.name for path in folder.iterdir()) == ["__init__.py", "taken.py"]
    assert (folder / "taken.py").read_text() == "# mine"
