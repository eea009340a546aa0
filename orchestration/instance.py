"""The Dagster instance that commands use: what was materialized, and with what, is remembered there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

_HOME = Path("var/dagster")


@contextmanager
def local_instance() -> Iterator[dg.DagsterInstance]:
    """The instance in var/dagster, unless DAGSTER_HOME says otherwise."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(_HOME.resolve())))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(Path(__file__).with_name("dagster.yaml"), home)
    with dg.DagsterInstance.get() as instance:
        yield instance
