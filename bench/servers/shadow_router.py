"""Turnout over a registry in which some models misbehave: `python -m bench.servers.shadow_router serve ..`."""

import sys

from litestar import Litestar

from models.reference import ModelReference
from models.registry import Registry
from models.runtime import Model, load
from router.http import app
from router.service import Service
from router.settings import Settings
from tests.shadow_models import SHADOWS, load_shadow


def load_any(registry: Registry, reference: ModelReference) -> Model:
    """Load a model that misbehaves, or a real one."""
    return load_shadow(registry, reference) if reference.name in SHADOWS else load(registry, reference)


def _create_app(settings: Settings) -> Litestar:
    # By the name under which the worker finds it as well.
    from bench.servers import shadow_router

    service = Service(settings, load_model=shadow_router.load_any)
    return app.application(service, max_body_bytes=settings.max_body_bytes)


if __name__ == "__main__":
    from router.cli import main

    app.create_app = _create_app  # type: ignore[assignment]
    main(sys.argv[1:], prog_name="turnout")
