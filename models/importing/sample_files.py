"""Sample rows in a file: CSV or Parquet, which need pandas, or JSON, which does not."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.errors import InvalidSample, MissingLibrary
from models.libraries import installed_version

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

LARGEST_SAMPLE = 10_000
"""How many rows are asked for at most, evenly spread over the file."""

_JSON_FORMS = '[{"feature": value, ..}, ..], or {"columns": [..], "data": [[..], ..]}'


class SampleFile(NamedTuple):
    """A file of rows, read when they are needed; its name says which format it has."""

    path: Path

    def frame(self, texts: Collection[str] = ()) -> "pd.DataFrame":
        """The rows as a data frame; columns in `texts` hold text even where a CSV file has digits only."""
        if self.path.suffix == ".json":
            frame: pd.DataFrame = _pandas().DataFrame(self.rows())
            return frame
        frame = _read(self.path, texts)
        return frame.iloc[_spread(len(frame), self.path)].reset_index(drop=True)

    def rows(self, texts: Collection[str] = ()) -> list[Row]:
        """The rows as JSON would carry them, None where a value is missing."""
        if self.path.suffix != ".json":
            return _plain_rows(self.frame(texts))
        rows = _json_rows(self.path)
        return [rows[place] for place in _spread(len(rows), self.path)]


def _spread(rows: int, path: Path) -> list[int]:
    if rows == 0:
        raise InvalidSample(f"sample {path} has no rows: give at least one, like those to predict")
    places: list[int] = np.unique(np.linspace(0, rows - 1, LARGEST_SAMPLE).astype(np.intp)).tolist()
    return places


def _pandas() -> Any:
    if installed_version("pandas") is None:
        raise MissingLibrary(
            "pandas is not installed, which reads samples for scikit-learn and those in CSV and Parquet: "
            "pip install 'turnout[analysis]', or for an ONNX graph give the sample as JSON"
        )
    import pandas as pd

    return pd


def _read(path: Path, texts: Collection[str]) -> "pd.DataFrame":
    readers: dict[str, Any] = {
        ".csv": lambda pandas: pandas.read_csv(path, dtype=dict.fromkeys(texts, "str")),
        ".parquet": lambda pandas: pandas.read_parquet(path),
    }
    if path.suffix not in readers:
        raise InvalidSample(f"sample {path} is none of .csv, .parquet and .json: save the rows as one of them")
    try:
        frame: pd.DataFrame = readers[path.suffix](_pandas())
    except (OSError, ValueError) as error:
        raise InvalidSample(f"sample {path} cannot be read as {path.suffix[1:]}: {error}") from error
    return frame


def _plain_rows(frame: "pd.DataFrame") -> list[Row]:
    columns = [
        [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
        for _, column in frame.items()
    ]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _json_rows(path: Path) -> list[Row]:
    try:
        # Unlike the standard, pandas and MLflow write NaN into JSON; Python's own reader takes it.
        content = json.loads(path.read_bytes(), parse_constant=lambda _: None)
        rows = _rows_of(content)
    except OSError as error:
        raise InvalidSample(f"sample {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidSample(f"sample {path} holds no rows of the form {_JSON_FORMS}: {error}") from error
    if rows and not any(rows):
        raise InvalidSample(f"sample {path} has no columns: give the features that the model takes")
    return rows


def _rows_of(content: Any) -> list[Row]:
    """The rows of a list of objects, of columns and data as pandas splits them, or of lists without names."""
    if isinstance(content, dict):
        table = content["data"] if "data" in content else content["inputs"]
        names = content.get("columns") or _names(len(table[0]) if table else 0)
    elif content and isinstance(content[0], list):
        table, names = content, _names(len(content[0]))
    else:
        return [dict(row) for row in content]
    texts = [_text(name) for name in names]
    return [dict(zip(texts, row, strict=True)) for row in table]


def _text(name: Any) -> str:
    """The name of a column, which pandas writes as a number where there was none."""
    if not isinstance(name, str | int):
        raise TypeError(f"{json.dumps(name)} is no name of a column")
    return str(name)


def _names(width: int) -> list[str]:
    """Return the names that `models.publish` gives to the columns of an array."""
    return [f"f{column}" for column in range(width)]
