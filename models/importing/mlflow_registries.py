"""Models in an MLflow registry or run, fetched with MLflow's own client."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import MissingLibrary, UnreadableModel
from models.libraries import installed_version

URI = re.compile(r"(models|runs|mlflow-artifacts):/")
TRACKING = "MLFLOW_TRACKING_URI"

# MLflow counts its users, draws progress bars and asks an absent server for minutes unless it is told not to.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """The folder of a model such as `models:/name/3`, `models:/name@alias` or `runs:/id/model`, while it is needed."""
    _check_client(uri)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(_download(uri, folder))


def _check_client(uri: str) -> None:
    if all(installed_version(name) is None for name in ("mlflow", "mlflow-skinny")):
        raise MissingLibrary(f"{uri} needs MLflow's client, which is not installed: pip install 'turnout[mlflow]'")
    if not os.environ.get(TRACKING):
        raise UnreadableModel(
            f"{uri} does not say on which server it is: set {TRACKING}, such as http://mlflow.internal:5000"
        )


def _download(uri: str, folder: str) -> str:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow.artifacts import download_artifacts

    try:
        path: str = download_artifacts(uri, dst_path=folder)
    except Exception as error:  # stores and artifact repositories raise what their own clients do
        reason = str(error).strip().partition("\n")[0][:300]
        raise UnreadableModel(f"{uri} cannot be fetched from {os.environ[TRACKING]}: {reason}") from error
    return path
