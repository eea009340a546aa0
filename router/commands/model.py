"""`turnout model`: the registry on this machine."""

from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar, get_args

import click
import msgspec

from models.manifest import Manifest
from models.reference import ModelReference
from models.registry import Registry
from models.signature import Output, Signature
from router.commands.output import json_option, print_json, print_rows
from router.settings import load

Document = TypeVar("Document")


@click.group()
def model() -> None:
    """The model versions in the registry, and the ways into it."""


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
    print_rows(
        rows, as_json=as_json, empty=f"no models in {registry.root}; publish one with models.publish or import one"
    )


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


@model.command("import")
@click.argument("source", metavar="FILE_OR_URI")
@click.option("--name", required=True, help="What the registry calls it.")
@click.option("--sample", type=click.Path(dir_okay=False), help="Rows that it can predict: .csv, .parquet or .json.")
@click.option("--signature", type=click.File("rb"), help='{"features": [..], "output": ..} as JSON, if it names none.')
@click.option("--output", type=click.Choice(get_args(Output)), help="What it predicts, if that does not show.")
@json_option
def import_model_file(
    *, source: str, name: str, sample: str | None, signature: BinaryIO | None, output: Output | None, as_json: bool
) -> None:
    """Publish a model that was trained elsewhere.

    FILE_OR_URI is an .onnx graph, a .skops file, a folder that MLflow wrote, or models:/NAME/VERSION in its registry.
    """
    from models.importing.files import import_model

    registry = _registry()
    takes = None if signature is None else _decoded(signature, Signature)
    reference = import_model(source, name=name, registry=registry, sample=sample, signature=takes, output=output)
    manifest = registry.manifest(reference)
    if as_json:
        print_json(manifest)
    else:
        click.echo("\n".join(_imported(manifest)))


def _imported(manifest: Manifest) -> Iterator[str]:
    """Yield what a person wants to know who has just imported a model."""
    signature, reference = manifest.signature, manifest.reference
    yield f"{reference} predicts a {signature.output} and is served by {manifest.runtime}; it takes"
    for feature in signature.features:
        yield f"  {feature.name}: {feature.kind}{', may be null' if feature.nullable else ''}"
    yield from manifest.notes
    predictions = manifest.sample.predictions
    if manifest.graph and signature.output == "number" and all(0 <= value <= 1 for value in predictions):
        yield "all of its numbers lie between 0 and 1: if they are probabilities, import it with --output probability"
    document = f'{{"name": "{reference.name}", "champion": "{reference}"}}'
    yield f"to serve it: echo '{document}' | turnout endpoint create -"


@model.command("remote")
@click.option("--url", required=True, help="The model server's address, such as http://models.internal:8000.")
@click.option("--model-name", required=True, help="What the server calls the model.")
@click.option("--model-version", help="Which version of it; unless said, the server chooses.")
@click.option("--signature", type=click.File("rb"), required=True, help='{"features": [..], "output": ..} as JSON.')
@click.option("--sample", type=click.File("rb"), required=True, help="A JSON list of input rows.")
@click.option("--name", required=True, help="What the registry calls it.")
@click.option(
    "--inputs",
    type=click.Choice(["per_feature", "single_tensor"]),
    help="One tensor for each feature, or one that holds all; unless said, as the server declares.",
)
@click.option(
    "--datatype",
    type=click.Choice(["FP16", "FP32", "FP64"]),
    default="FP64",
    help="Of numbers, if the server is silent.",
)
@click.option("--output", help="Which output holds the prediction, if there are several.")
@click.option("--output-column", type=click.IntRange(min=0), help="Which of its columns, from 0, if it has several.")
@click.option("--token-variable", help="The environment variable that holds the server's bearer token.")
def publish_remote_model(
    *, url: str, model_name: str, signature: BinaryIO, sample: BinaryIO, name: str, **options: Any
) -> None:
    """Publish a model that another server runs, after asking that server for predictions of the sample."""
    from models.remote_publishing import publish_remote

    takes = _decoded(signature, Signature)
    rows = _decoded(sample, list[dict[str, Any]])
    reference = publish_remote(url, model_name, takes, rows, name=name, registry=_registry(), **options)
    click.echo(f"{reference} runs on {url}")


def _decoded(file: BinaryIO, type_: type[Document]) -> Document:
    try:
        return msgspec.json.decode(file.read(), type=type_)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file.name}: {error}") from error


def _registry() -> Registry:
    return Registry(load().registry)
