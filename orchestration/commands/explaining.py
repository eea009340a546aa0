"""What the commands share: errors that a user can do something about, and finding the endpoint that is meant."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from orchestration.endpoints.declaration import Endpoint
from orchestration.endpoints.discovery import discover
from orchestration.errors import NoSuchEndpoint, OrchestrationError

PROGRESS = Console(stderr=True, highlight=False)
"""Bars do not mix with what is printed."""


@contextmanager
def explained() -> Iterator[None]:
    """Say what went wrong in a line, where it is no bug of ours."""
    try:
        yield
    except OrchestrationError as error:
        raise click.ClickException(str(error)) from error


def declared(name: str) -> Endpoint:
    """The endpoint of that name; raises NoSuchEndpoint and EndpointBroken."""
    known = {endpoint.name: endpoint for endpoint in discover()}
    if name not in known:
        raise NoSuchEndpoint(
            f"no file declares the endpoint {name!r}, only {', '.join(known)}: correct the name, or write one with "
            f"`turnout new endpoint {name}`"
        )
    return known[name]
