"""The `turnout` command."""

import ast
import re
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points, requires
from importlib.util import find_spec
from pathlib import Path

import click

GROUP = "turnout.commands"

_OWN = [
    EntryPoint(name, f"router.commands.{module}:{name.replace('-', '_')}", GROUP)
    for name, module in {
        "serve": "serve",
        "endpoint": "control",
        "experiment": "control",
        "rollout": "rollout",
        "audit": "control",
        "model": "model",
        "key": "key",
        "db": "db",
        "verify-log": "verify",
    }.items()
]


class _Commands(click.Group):
    """Our subcommands and those of the other packages, each imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _entries().get(cmd_name)
        return None if entry is None else _load(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(_entries()[name])) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (message := _explained(error)) is None:
                raise
            raise click.ClickException(message) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="turnout")
def main() -> None:
    """Route traffic to several models, and learn from what comes of it."""


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in (*entry_points(group=GROUP), *_OWN)}


def _load(entry: EntryPoint) -> click.Command:
    try:
        command: click.Command = entry.load()
    except ModuleNotFoundError as error:
        return _missing(entry, error)
    return command


def _summary(entry: EntryPoint) -> str:
    """The first line on a command, read from its file where that is possible: to import all takes seconds."""
    if _is_missing(entry):
        return f"({_remedy(entry)})"
    spec = find_spec(entry.module)
    source = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return _load(entry).get_short_help_str()


def _is_missing(entry: EntryPoint) -> bool:
    """Whether the command's package or what its extra of ours names is not installed."""
    package = entry.module.partition(".")[0]
    named = [re.match(rf"([\w.-]+).*extra == ['\"]{package}['\"]", each) for each in requires("turnout") or ()]
    try:
        for found in filter(None, named):
            distribution(found[1])
    except PackageNotFoundError:
        return True
    return find_spec(package) is None


def _missing(entry: EntryPoint, error: ModuleNotFoundError) -> click.Command:
    """Return a command that says which extra to install, so that the others can still be used."""

    def refuse() -> None:
        raise click.ClickException(f"{entry.name} {_remedy(entry)} ({error})")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(entry.name, callback=refuse, context_settings=settings)


def _remedy(entry: EntryPoint) -> str:
    return f"needs pip install 'turnout[{entry.module.partition('.')[0]}]'"


def _explained(error: Exception) -> str | None:
    """Return the message of an error that a user can do something about; None for a bug of ours."""
    import httpx

    from models.errors import ModelError
    from router.client import ApiError
    from router.errors import TurnoutError

    if isinstance(error, ApiError) and error.status == httpx.codes.UNAUTHORIZED:
        return f"{error}; commands show the key in TURNOUT_API_KEY"
    if isinstance(error, TurnoutError | ModelError | ApiError):
        return str(error)
    if isinstance(error, httpx.TransportError):
        return f"the router does not answer: {error}; is `turnout serve` running?"
    return None
