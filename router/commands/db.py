"""`turnout db`: the ledger's database."""

import click

from router.ledger.database import HEAD, open_database, revision, shown, upgrade
from router.settings import load


@click.group()
def db() -> None:
    """Look after the ledger's database."""


@db.command("upgrade")
def upgrade_database() -> None:
    """Create the tables or bring them up to date; `turnout serve` does it as well."""
    settings = load()
    engine = open_database(settings.database)
    before = revision(engine)
    upgrade(engine)
    click.echo(f"{shown(settings.database)} is at revision {HEAD} (was {before or 'empty'})")
