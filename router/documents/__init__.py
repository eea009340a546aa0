"""The documents that the API takes and returns: endpoints and experiments, and the checks they can do on their own."""

from router.documents.allocations import (
    AnyAllocation,
    AnyFeature,
    Bandit,
    CategoryFeature,
    Contextual,
    Interleave,
    NumberFeature,
    Split,
    Thompson,
    columns_of,
)
from router.documents.base import GIVE, Document, Name, split_path
from router.documents.checks import check_endpoint, check_experiment
from router.documents.experiments import (
    HOLDOUT_NAME,
    INTERLEAVED_NAME,
    SPECIAL_NAMES,
    Arm,
    Breaker,
    Endpoint,
    Experiment,
)
from router.documents.malformed import Fault, fault_at, fault_in, shown
from router.documents.metrics import (
    LARGEST_VALUE,
    AnyMetric,
    BinaryMetric,
    Limits,
    NumericMetric,
    RatioMetric,
    ScoreMetric,
)

__all__ = [
    "GIVE",
    "HOLDOUT_NAME",
    "INTERLEAVED_NAME",
    "LARGEST_VALUE",
    "SPECIAL_NAMES",
    "AnyAllocation",
    "AnyFeature",
    "AnyMetric",
    "Arm",
    "Bandit",
    "BinaryMetric",
    "Breaker",
    "CategoryFeature",
    "Contextual",
    "Document",
    "Endpoint",
    "Experiment",
    "Fault",
    "Interleave",
    "Limits",
    "Name",
    "NumberFeature",
    "NumericMetric",
    "RatioMetric",
    "ScoreMetric",
    "Split",
    "Thompson",
    "check_endpoint",
    "check_experiment",
    "columns_of",
    "fault_at",
    "fault_in",
    "shown",
    "split_path",
]
