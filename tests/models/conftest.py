from pathlib import Path

import pytest

from models.registry import Registry
from tests.models.made_up import Flights, made_up_flights


@pytest.fixture(scope="session")
def flights() -> Flights:
    return made_up_flights(800, seed=20130101)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")
