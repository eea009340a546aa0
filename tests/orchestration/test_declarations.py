"""What the endpoints declare is what the router takes."""

import msgspec
import pytest

from orchestration.definitions import ENDPOINTS
from orchestration.endpoints.declaration import Endpoint
from router import documents

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)


def models_of(endpoint: Endpoint) -> dict[str, str]:
    return {recipe.name: f"{endpoint.name}-{recipe.name.replace('_', '-')}@1" for recipe in endpoint.recipes}


@each_endpoint
def test_documents_pass_the_routers_checks(endpoint: Endpoint) -> None:
    models = models_of(endpoint)
    document = msgspec.convert(endpoint.document(models), documents.Endpoint)
    documents.check_endpoint(document)
    assert document.champion in models.values()
    for declared in endpoint.experiments:
        experiment = msgspec.convert(declared.document(endpoint.name, models), documents.Experiment)
        documents.check_experiment(experiment, kind=document.kind, output="probability")
        assert [arm.model for arm in experiment.arms] == [models[candidate] for _, candidate in declared.arms]
        assert not {arm.model for arm in experiment.arms} & set(experiment.shadows)


@each_endpoint
def test_no_request_is_in_the_audience_of_two_experiments(endpoint: Endpoint) -> None:
    """Then it does not matter in which order they were made, nor that one of them was made anew."""
    audiences = [declared.audience for declared in endpoint.experiments]
    assert len(set(map(repr, audiences))) == len(audiences)


def test_names_are_each_given_once() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS] + [e.name for endpoint in ENDPOINTS for e in endpoint.experiments]
    assert len(set(names)) == len(names)


def test_endpoints_share_their_data() -> None:
    assert len({id(endpoint.data) for endpoint in ENDPOINTS}) == 1
