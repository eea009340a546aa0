"""A candidate that nobody should be shown: it learned from features that were shifted by accident.

Its pipeline had rates in percent, times in UTC, and the weather in metric units. Rows of the same pipeline would not
tell; live requests bring the features as they always were.
"""

from typing import Any

import pandas as pd

from models import ModelReference, Registry
from models.publishing import publish
from models.recipe import Recipe
from orchestration.candidates.training import features_of, signature_of
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake

MODEL = "flight-season-sabotaged"
_UTC_MINUTES = 300
_DAY_MINUTES = 1440
_METRIC = {
    "temperature": (32.0, 5 / 9),
    "wind_speed": (0.0, 1.609),
    "wind_gust": (0.0, 1.609),
    "precipitation": (0.0, 25.4),
    "pressure": (0.0, 100.0),
    "visibility": (0.0, 1.609),
}
"""What is 0 in metric units, and how large the units are."""
_SAMPLE = 2_000


def shifted(flights: pd.DataFrame) -> pd.DataFrame:
    """The flights with rates in percent, times of departure in UTC, and the weather in °C, km/h, mm, Pa and km."""
    percent = {name: flights[name] * 100 for name in flights.columns if "_rate" in str(name)}
    metric = {name: (flights[name] - zero) * factor for name, (zero, factor) in _METRIC.items()}
    minutes = (flights["departure_minute"] + _UTC_MINUTES) % _DAY_MINUTES
    return flights.assign(departure_minute=minutes, **percent, **metric)


def publish_sabotaged(endpoint: Endpoint, recipe: Recipe, lake: Lake, registry: Registry) -> ModelReference:
    """Train the recipe on shifted features and publish it, as somebody would who trains elsewhere; only once."""
    if registry.versions(MODEL):
        return registry.latest(MODEL)
    flights = shifted(lake.read(endpoint.data.train.table))
    features = features_of(endpoint, flights)
    signature = signature_of(endpoint, features)
    estimator: Any = recipe.build(signature)
    estimator.fit(features, flights[endpoint.label].astype(int))
    return publish(estimator, features.head(_SAMPLE), name=MODEL, registry=registry, signature=signature)
