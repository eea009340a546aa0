"""Visits to a shop as somebody has them, and the new endpoint that is made of them."""

import importlib
import sqlite3
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from orchestration.commands.new import new
from orchestration.endpoints.declaration import Endpoint
from orchestration.endpoints.discovery import discover
from orchestration.scaffolding.sample import visits

ROWS = (
    visits()
    .head(3000)
    .assign(
        started_at=lambda rows: rows["started_at"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        code=[f"{number % 7:03}" for number in range(3000)],
        age=np.where(np.arange(3000) % 9, np.arange(3000) % 50 + 18, np.nan),
        member=np.where(np.arange(3000) % 2, "yes", "no"),
        note=[f"note {number}" for number in range(3000)],
        shop="Bristol",
        paid_at=[f"2025-05-{number % 28 + 1:02}" for number in range(3000)],
        empty="",
    )
)
"""Two months and three days of visits, with columns of every kind; as a CSV holds them."""


class Written(NamedTuple):
    """A folder of endpoints, as a package, and what the command said of a new one in it."""

    folder: Path
    result: Result

    @property
    def endpoint(self) -> Endpoint:
        (found,) = discover(importlib.import_module(self.folder.name))
        return found


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Written:
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr("orchestration.scaffolding.new.FOLDER", folder)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.chdir(folder.parent)
    return Written(folder, CliRunner().invoke(new, ["endpoint", *arguments]))


def csv_folder(folder: Path, rows: pd.DataFrame = ROWS) -> Path:
    folder.mkdir()
    rows.iloc[:1000].to_csv(folder / "first.csv", index=False)
    rows.iloc[1000:].to_csv(folder / "second.csv", index=False)
    return folder


def database(folder: Path) -> str:
    connection = sqlite3.connect(folder / "shop.db")
    ROWS.to_sql("visits", connection, index=False)
    connection.commit()
    connection.close()
    return "sqlite:///shop.db"
