"""What belongs to one candidate: a recipe of an endpoint, and the names that its assets, models and tables have."""

from typing import NamedTuple

from models.recipe import Recipe
from orchestration.endpoints.declaration import Endpoint


class Candidate(NamedTuple):
    """A recipe trained for an endpoint."""

    endpoint: Endpoint
    recipe: Recipe

    @property
    def model(self) -> str:
        """Name in the registry, such as `flight-delay-logistic`."""
        return f"{self.endpoint.name}-{self.recipe.name.replace('_', '-')}"

    @property
    def key(self) -> str:
        """Asset of the registered model."""
        return f"{self.endpoint.key}_{self.recipe.name}"

    @property
    def trained_key(self) -> str:
        """Asset of the trained and evaluated candidate, which is not registered yet."""
        return f"{self.key}_candidate"

    @property
    def predictions(self) -> str:
        """Table of the lake with its predictions on the validation period."""
        return f"candidates/{self.key}"


def candidates_of(endpoint: Endpoint) -> list[Candidate]:
    """Every candidate that the endpoint declares."""
    return [Candidate(endpoint, recipe) for recipe in endpoint.recipes]


def declared_champion(endpoint: Endpoint) -> Candidate:
    """The candidate that serves until the router decides otherwise."""
    return next(each for each in candidates_of(endpoint) if each.recipe.name == endpoint.champion)
