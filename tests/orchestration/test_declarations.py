"""What the endpoints declare is what the router takes."""

from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from orchestration.endpoints import flight_choice, flight_delay
from orchestration.endpoints.declaration import Endpoint
from orchestration.endpoints.discovery import discover
from orchestration.errors import EndpointBroken
from orchestration.flights.datasets import FLIGHTS
from router import documents

ENDPOINTS = discover()
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


def test_every_declared_endpoint_is_found() -> None:
    assert [each for each in ENDPOINTS if each.data is FLIGHTS] == [flight_choice.ENDPOINT, flight_delay.ENDPOINT]


DECLARED = "from orchestration.endpoints.flight_choice import ENDPOINT as OURS\n"
BROKEN = {
    "name": ("x = 1\ny = z\n", "a.py, line 2: NameError: name 'z' is not defined; correct it, or move the file out"),
    "syntax": ("x = (\n", "a.py, line 1: SyntaxError: "),
    "package": ("import not_installed\n", "a.py, line 1: ModuleNotFoundError: No module named 'not_installed'"),
    "type": ("ENDPOINT = 'shop'\n", "a.py: ENDPOINT is a str, not an Endpoint; correct it"),
    "candidate": (
        DECLARED + "ENDPOINT = OURS._replace(name='c', champion='oak')\n",
        "a.py: champion, shadows or experiments name 'oak', and the recipes are 'base_rate', 'boosting'; correct it",
    ),
    "endpoint": (DECLARED + "ENDPOINT = OURS\n", "endpoint 'flight-choice' is declared in "),
    "experiment": (
        DECLARED + "ENDPOINT = OURS._replace(name='c')\n",
        "experiment 'boosting-vs-base-rate' is declared in ",
    ),
    "data": (
        DECLARED + "ENDPOINT = OURS._replace(name='c', experiments=(), data=OURS.data._replace(cluster='x'))\n",
        "data 'flights' is declared in ",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_file_is_named_with_a_remedy(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = BROKEN[what]
    folder = tmp_path / f"broken_{what}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text(content)
    (folder / "b.py").write_text(DECLARED + "ENDPOINT = OURS\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EndpointBroken) as refused:
        discover(import_module(folder.name))
    assert message in str(refused.value)
    assert str(folder / "a.py") in str(refused.value)
