"""How an endpoint declares its datasets: what each is built from, by what, and what must hold for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

Inputs = Mapping[str, pd.DataFrame]


class Built(NamedTuple):
    """A dataset's rows, and counts worth showing beside them."""

    frame: pd.DataFrame
    counts: Mapping[str, int] = {}


class Input(NamedTuple):
    """A dataset that another is built from, with the months before its own that it needs too."""

    dataset: str
    months_back: int = 0


class Rewind(NamedTuple):
    """How to see a dataset as of the start of a day, to find out a feature that knows the future."""

    inputs: Callable[[Inputs, pd.Timestamp], Inputs]
    """The inputs as they were known when the day began."""
    day: str
    """Column with the day of each row."""
    key: str
    """Column that identifies a row."""
    outcomes: tuple[str, ...]
    """Columns that are meant to know the future."""


class Dataset(NamedTuple):
    """One table of the lake and the asset that makes it."""

    name: str
    description: str
    build: Callable[[Inputs, str], Built]
    """Makes the rows from the inputs, for the partition with the given key (empty when not partitioned)."""
    code: tuple[Any, ...]
    """Modules and constants that decide the rows; a change of them makes the asset stale."""
    inputs: tuple[Input, ...] = ()
    partitioned: bool = True
    """Whether it has the partitions of its data, or is one table."""
    outside: bool = False
    """Whether it reads what changes without Dagster's knowledge, and may have partitions without rows."""
    schema: Any = None
    """pandera schema that blocks everything downstream when broken."""
    rewind: Rewind | None = None
    """Set for tables of features: adds the blocking leakage check."""

    @property
    def table(self) -> str:
        """Name of the table in the lake."""
        return f"datasets/{self.name}"


class Period(NamedTuple):
    """Rows cut out of a table of features, as a rule those of a span of time."""

    name: str
    description: str
    partitions: tuple[str, ...]
    """Keys of the partitions in it; none for the whole table."""
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()
    """Columns to sort by, so that rows come in the order of time."""
    required: tuple[str, ...] = ()
    """Columns without which a row is left out, such as the label."""
    cut: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    """Takes the period's rows out of those, in their order, where that depends on the rows themselves."""
    code: tuple[Any, ...] = ()
    """Modules and constants that decide the cut."""
    monthly: bool = False
    """Whether each month is a partition of its own, or all are one table."""

    @property
    def table(self) -> str:
        """Name of the table in the lake."""
        return f"datasets/{self.name}"

    @property
    def definition(self) -> dg.MonthlyPartitionsDefinition | None:
        """One partition per month of a monthly period, which has to be without gaps."""
        if not self.monthly:
            return None
        end = pd.Timestamp(self.partitions[-1]) + pd.DateOffset(months=1)
        return dg.MonthlyPartitionsDefinition(start_date=self.partitions[0], end_date=end.strftime("%Y-%m-%d"))


class Data(NamedTuple):
    """Datasets and the periods cut out of them; endpoints that name the same data share its assets."""

    name: str
    datasets: tuple[Dataset, ...]
    """From raw to features, in any order."""
    partitions: dg.TimeWindowPartitionsDefinition | None
    """The months or days that the source has; none where it is not divided."""
    features_from: str
    """The dataset that holds features and labels."""
    row_key: str
    """Column that identifies a row."""
    cluster: str
    """Column of what rows have in common, such as the day's weather: intervals resample its values, not rows."""
    train: Period
    validation: Period
    replay: Period | None = None
    """Rows to send as live traffic, where there are some besides."""

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the partitions up to now; none where the data are not divided."""
        return self.partitions.get_partition_keys() if self.partitions else []

    @property
    def periods(self) -> tuple[Period, ...]:
        """Every period that there is."""
        return tuple(period for period in (self.train, self.validation, self.replay) if period)
