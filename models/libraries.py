"""Which library versions made a model, and whether the installed ones can serve it."""

from importlib.metadata import PackageNotFoundError, version

from models.errors import IncompatibleLibrary
from models.manifest import Manifest

RECORDED = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx", "skops")


def installed_libraries() -> dict[str, str]:
    """The versions of the libraries that shape a model's files, as far as they are installed."""
    found = {name: installed_version(name) for name in RECORDED}
    return {name: number for name, number in found.items() if number is not None}


def installed_version(library: str) -> str | None:
    """The version of a library, or None where it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def check_scikit_learn(manifest: Manifest) -> None:
    """Raise IncompatibleLibrary unless the estimator was made with this major and minor scikit-learn.

    An estimator holds private state, which scikit-learn changes with minor versions and without notice.
    """
    recorded, installed = manifest.libraries.get("scikit-learn", "unknown"), installed_version("scikit-learn")
    if installed is None or recorded.split(".")[:2] != installed.split(".")[:2]:
        wanted = ".".join(recorded.split(".")[:2])
        raise IncompatibleLibrary(
            f"{manifest.reference} was made with scikit-learn {recorded}, but {installed or 'none'} is installed: "
            f"install scikit-learn {wanted}.* or publish the model again"
        )
