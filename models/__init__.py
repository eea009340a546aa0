"""One model: recipe, training, signature, evaluation, export, registry, runtime.

Importing this package loads none of the libraries that models need; each name below loads what it uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.importing.files import import_model as import_model
    from models.publishing import publish as publish
    from models.reference import ModelReference as ModelReference
    from models.registry import Registry as Registry
    from models.remote_publishing import publish_remote as publish_remote
    from models.runtime import load as load
    from models.signature import Feature as Feature
    from models.signature import Signature as Signature

HOMES = {
    "Feature": "models.signature",
    "ModelReference": "models.reference",
    "Registry": "models.registry",
    "Signature": "models.signature",
    "import_model": "models.importing.files",
    "load": "models.runtime",
    "publish": "models.publishing",
    "publish_remote": "models.remote_publishing",
}

__all__ = ["Feature", "ModelReference", "Registry", "Signature", "import_model", "load", "publish", "publish_remote"]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
