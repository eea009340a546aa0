"""A router of models that misbehave: `python -m tests.system.strange_router MODULE:LOADER serve ..`.

The product knows nothing of it: what it loads models with is replaced, by that function, before it starts.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from litestar import Litestar

from models.registry import Registry
from router.http import app
from router.service import Service
from router.settings import Settings
from tests.router.small_models import add_model
from tests.system.processes import Launch, Process, Router


@contextmanager
def strange_router(folder: Path, names: Sequence[str], loader: Callable[..., Any], **settings: str) -> Iterator[Router]:
    """Run a router over a registry with one version of each of these models, which `loader` loads."""
    registry = Registry(folder / "registry")
    for name in names:
        add_model(registry, name)

    running = Router(folder, registry.root, settings=settings, launch=launch_strange(loader))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def launch_strange(loader: Callable[..., Any]) -> Launch:
    """Return how to start a router that loads its models with this function."""

    def launch(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        with log.open("ab") as output:
            place = f"{loader.__module__}:{loader.__qualname__}"
            command = [sys.executable, "-m", "tests.system.strange_router", place, *arguments]
            return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    return launch


def _create_app(settings: Settings) -> Litestar:
    service = Service(settings, load_model=resolve_name(sys.argv[1]))
    return app.application(service, max_body_bytes=settings.max_body_bytes)


if __name__ == "__main__":
    from router.cli import main

    app.create_app = _create_app  # type: ignore[assignment]
    main(sys.argv[2:], prog_name="turnout")
