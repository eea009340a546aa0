"""The rows that a model was made from, whatever its periods hold by now."""

from collections.abc import Sequence

import pandas as pd

from models.manifest import DatasetVersion
from orchestration.datasets.declaration import Period
from orchestration.lake import Lake


def present(lake: Lake, period: Period) -> DatasetVersion:
    """The period's version of now; raises TableMissing."""
    number, content_hash = lake.version(period.table)
    return DatasetVersion(number, content_hash)


def rows_of(lake: Lake, period: Period, version: DatasetVersion, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The period's rows as they were at that version; raises TableMissing when they are not there any more."""
    return lake.read_version(period.table, version.version, columns, version.content_hash)
