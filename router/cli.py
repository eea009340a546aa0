"""The `turnout` command."""

from importlib.metadata import EntryPoint, entry_points

import click
import httpx

from models.errors import ModelError
from router.client import ApiError
from router.commands.control import endpoint, experiment
from router.commands.db import db
from router.commands.model import model
from router.commands.serve import serve
from router.errors import TurnoutError

ENTRY_POINTS = "turnout.commands"


class _Commands(click.Group):
    """Our subcommands plus those of installed packages, which are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *(entry.name for entry in entry_points(group=ENTRY_POINTS))])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=ENTRY_POINTS, name=cmd_name):
            return _load(entry)
        return None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (TurnoutError, ModelError, ApiError) as error:
            raise click.ClickException(str(error)) from error
        except httpx.TransportError as error:
            raise click.ClickException(f"the router does not answer: {error}; is `turnout serve` running?") from error


def _load(entry: EntryPoint) -> click.Command:
    try:
        command: click.Command = entry.load()
    except ModuleNotFoundError as error:
        extra = entry.value.partition(".")[0]
        raise click.ClickException(f"{error}; install it with: pip install 'turnout[{extra}]'") from error
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="turnout")
def main() -> None:
    """Route traffic to several models, and learn from what comes of it."""


for _command in (serve, endpoint, experiment, model, db):
    main.add_command(_command)
