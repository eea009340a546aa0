"""A router that serves the models of `strange_models`: `python -m tests.system.strange_router serve ..`.

The product knows nothing of it: what it loads models with is replaced before it starts.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from litestar import Litestar

from models.registry import Registry
from router.http import app
from router.service import Service
from router.settings import Settings
from tests.router.small_models import add_model
from tests.system.processes import Process, Router
from tests.system.strange_models import load_strange


def launch_strange(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start it as a person starts the command."""
    with log.open("ab") as output:
        command = [sys.executable, "-m", "tests.system.strange_router", *arguments]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)


@contextmanager
def strange_router(folder: Path, names: Sequence[str], **settings: str) -> Iterator[Router]:
    """Run a router over a registry with one version of each of these models."""
    registry = Registry(folder / "registry")
    for name in names:
        add_model(registry, name)
    running = Router(folder, registry.root, settings=settings, launch=launch_strange)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def _create_app(settings: Settings) -> Litestar:
    service = Service(settings, load_model=load_strange)
    return app.application(service, max_body_bytes=settings.max_body_bytes)


if __name__ == "__main__":
    from router.cli import main

    app.create_app = _create_app  # type: ignore[assignment]
    main(sys.argv[1:], prog_name="turnout")
