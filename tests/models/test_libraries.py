from importlib.metadata import version

from models.libraries import RECORDED, installed_libraries, installed_version


def test_installed_libraries_are_those_that_shape_a_model() -> None:
    assert installed_libraries() == {name: version(name) for name in RECORDED}


def test_library_that_is_not_installed_has_no_version() -> None:
    assert installed_version("no-such-library") is None
