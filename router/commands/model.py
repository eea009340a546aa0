"""`turnout model`: the registry on this machine."""

import click

from models.reference import ModelReference
from models.registry import Registry
from router.commands.output import json_option, print_json, print_rows
from router.settings import load


@click.group()
def model() -> None:
    """Look at the model versions in the registry."""


@model.command("list")
@json_option
def list_models(*, as_json: bool) -> None:
    """List every model version."""
    registry = _registry()
    manifests = [registry.manifest(reference) for reference in registry.references()]
    rows = [
        {
            "model": str(manifest.reference),
            "runtime": manifest.runtime,
            "output": manifest.signature.output,
            "features": len(manifest.signature.features),
            "created": f"{manifest.created_at:%Y-%m-%d %H:%M:%S}",
        }
        for manifest in manifests
    ]
    print_rows(rows, as_json=as_json, empty=f"no models in {registry.root}; publish one with models.publish")


@model.command("show")
@click.argument("reference")
def show_model(reference: str) -> None:
    """Print the manifest of NAME@VERSION."""
    print_json(_registry().manifest(ModelReference.parse(reference)))


@model.command("verify")
@click.argument("reference")
def verify_model(reference: str) -> None:
    """Hash every file of NAME@VERSION again and compare with its manifest."""
    manifest = _registry().verify(ModelReference.parse(reference))
    click.echo(f"{manifest.reference}: {len(manifest.files)} files as published")


def _registry() -> Registry:
    return Registry(load().registry)
