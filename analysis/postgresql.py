"""A ledger in PostgreSQL, opened for reading only; psycopg is imported when there is one."""

import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ibis

from analysis.errors import SourceNotFound, SourceUnavailable, UnreadableSource

ADDRESS = "postgresql://USER:PASSWORD@HOST:PORT/NAME"
"""How an address is written."""

_SCHEME = re.compile(r"^postgresql(\+psycopg)?://")
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@")
_PASSWORD_OPTION = re.compile(r"([?&]password=)[^&]*")
_CONNECT_S = 3


def is_address(url: str) -> bool:
    """Return whether the address is one of PostgreSQL."""
    return _SCHEME.match(url) is not None


def shown(url: str) -> str:
    """Return the address as people may see it, without its password."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def connect(url: str) -> Any:
    """Return an Ibis backend whose connection is closed when nobody uses it any more.

    Raises:
        SourceNotFound: The driver is not installed, or the address cannot be understood.
        psycopg.Error: The server refuses, or does not answer.
    """
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise SourceNotFound("a ledger in PostgreSQL needs pip install 'turnout[postgresql]'") from error
    address = _understood(url)
    # In autocommit, so that a report that stays open does not hold back the server's clean-up.
    connection = psycopg.connect(address, autocommit=True)
    try:
        connection.read_only = True
        backend = ibis.postgres.from_connection(connection)
    except BaseException:
        connection.close()
        raise
    weakref.finalize(backend, connection.close)
    return backend


def _understood(url: str) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        parts = conninfo_to_dict(_SCHEME.sub("postgresql://", url), connect_timeout=_CONNECT_S)
        is_clear = "@" not in str(parts.get("host"))
    except (ProgrammingError, UnicodeDecodeError):
        is_clear = False
    # The driver's messages would repeat an address that it misreads, and with it parts of the password.
    if not is_clear:
        raise SourceNotFound(
            f"source {shown(url)!r} cannot be understood; write it as {ADDRESS}, in which @ : / % of a password are "
            "written as %40 %3A %2F %25"
        )
    return make_conninfo("", **parts)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what the driver raises into a SourceError of that name.

    Raises:
        SourceUnavailable: The server does not answer.
        UnreadableSource: It does not let us read.
    """
    try:
        from psycopg import Error, OperationalError
    except ModuleNotFoundError:
        yield
        return
    try:
        yield
    except OperationalError as error:
        raise SourceUnavailable(
            f"{name} does not answer ({_said(error)}); start its server, or correct the address"
        ) from error
    except Error as error:
        raise UnreadableSource(
            f"{name} cannot be read ({_said(error)}); check that it is a ledger, and that this user may read its tables"
        ) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())
