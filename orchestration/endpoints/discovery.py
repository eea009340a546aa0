"""Finds the declared endpoints: every file of this folder that has an `ENDPOINT`."""

import pkgutil
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from orchestration import endpoints
from orchestration.endpoints.declaration import Endpoint
from orchestration.errors import EndpointBroken

_REMEDY = "correct it, or move the file out of the folder"


def discover(package: ModuleType = endpoints) -> tuple[Endpoint, ...]:
    """Every declared endpoint, in the order of file names.

    Raises:
        EndpointBroken: A file cannot be imported, names candidates without a recipe, or declares what another one
            declares already.
    """
    found = dict(_declared(package))
    _refuse_twice("endpoint", ((each.name, file) for file, each in found.items()))
    _refuse_twice("experiment", ((e.name, file) for file, each in found.items() for e in each.experiments))
    data = {id(each.data): (each.data.name, file) for file, each in found.items()}
    _refuse_twice("data", data.values())
    return tuple(found.values())


def _declared(package: ModuleType) -> Iterator[tuple[str, Endpoint]]:
    for folder, name, _ in pkgutil.iter_modules(package.__path__):
        file = str(Path(getattr(folder, "path", "")) / f"{name}.py")
        declared = getattr(_imported(f"{package.__name__}.{name}", file), "ENDPOINT", None)
        if isinstance(declared, Endpoint):
            _refuse_unknown_candidates(declared, file)
            yield file, declared
        elif declared is not None:
            raise EndpointBroken(f"{file}: ENDPOINT is a {type(declared).__name__}, not an Endpoint; {_REMEDY}")


def _imported(module: str, file: str) -> ModuleType:
    try:
        return import_module(module)
    except Exception as error:  # whatever the file does
        raise EndpointBroken(f"{_place(error, file)}: {type(error).__name__}: {error}; {_REMEDY}") from error


def _place(error: Exception, file: str) -> str:
    """The file, and the line of it where the error came up."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}" if lines else file


def _refuse_unknown_candidates(endpoint: Endpoint, file: str) -> None:
    recipes = [recipe.name for recipe in endpoint.recipes]
    if unknown := sorted(endpoint.compared - set(recipes)):
        raise EndpointBroken(
            f"{file}: champion, shadows or experiments name {', '.join(map(repr, unknown))}, and the recipes are "
            f"{', '.join(map(repr, recipes)) or 'none'}; {_REMEDY}"
        )


def _refuse_twice(what: str, named: Iterable[tuple[str, str]]) -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for name, file in named:
        files[name].append(file)
    for name, places in files.items():
        if len(places) > 1:
            raise EndpointBroken(f"{what} {name!r} is declared in {' and in '.join(places)}; give one another name")
