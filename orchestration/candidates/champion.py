"""Which model version a candidate is compared with."""

from models import ModelReference, Registry
from orchestration.candidates.names import declared_champion
from orchestration.endpoints.declaration import Endpoint
from orchestration.rollouts.router import Router


def champion_of(endpoint: Endpoint, router: Router, registry: Registry) -> ModelReference | None:
    """The version that serves the endpoint now; without a router the newest one of the declared champion.

    None before that was ever registered. Raises ApiError when the router is there and does not tell.
    """
    serving = router.champion(endpoint.name)
    if serving is not None:
        return ModelReference.parse(serving)
    model = declared_champion(endpoint).model
    versions = registry.versions(model)
    return ModelReference(model, versions[-1]) if versions else None
