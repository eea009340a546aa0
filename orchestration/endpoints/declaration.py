"""What one file in this folder says about an endpoint; the asset graph is made from it."""

from typing import NamedTuple

import dagster as dg

from orchestration.datasets.declaration import Dataset, Period


class Endpoint(NamedTuple):
    """An endpoint: where its data come from, what its models see and predict, and how they compete."""

    name: str
    """As clients call it, such as `flight-delay`."""
    datasets: tuple[Dataset, ...]
    """From raw to features, in any order."""
    months: dg.MonthlyPartitionsDefinition
    """The months that the source has."""
    features_from: str
    """The dataset that holds the features and the label."""
    label: str
    """Column to predict: 1 when it happened, 0 when not."""
    train: Period
    validation: Period
    replay: Period

    @property
    def key(self) -> str:
        """The name as Python and asset keys spell it."""
        return self.name.replace("-", "_")
