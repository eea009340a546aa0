"""What a shadow worker is started with."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, TypeAlias

from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model

LoadModel: TypeAlias = Callable[[Registry, ModelReference], Model]


class Launch(NamedTuple):
    """Where the worker finds models, how it loads them, and how much memory they may take."""

    registry: Path
    loader: str
    """The function that loads models, as `module:function`."""
    memory_bytes: int


def loader_name(load: LoadModel) -> str:
    """Return the name by which another process finds a function of a module."""
    return f"{getattr(load, '__module__', '')}:{getattr(load, '__qualname__', repr(load))}"


def find_loader(name: str) -> LoadModel:
    """Return the function that has this name."""
    module, _, function = name.partition(":")
    found: LoadModel = getattr(import_module(module), function)
    return found
