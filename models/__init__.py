"""One model: recipe, training, signature, evaluation, export, registry, runtime.

Importing this package loads none of the libraries that models need; each name below loads what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.reference import ModelReference as ModelReference
    from models.registry import Registry as Registry
    from models.signature import Feature as Feature
    from models.signature import Signature as Signature

HOMES = {
    "Feature": "models.signature",
    "ModelReference": "models.reference",
    "Registry": "models.registry",
    "Signature": "models.signature",
}

__all__ = ["Feature", "ModelReference", "Registry", "Signature"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
