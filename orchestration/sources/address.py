"""A database's address: `${NAME}` in it stands for an environment variable, and nobody is told a password."""

import os
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestration.errors import SourceUnavailable

_FORM = "postgresql+psycopg://USER:${PASSWORD}@HOST:PORT/NAME"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile("pass|pwd|secret|token|odbc", re.IGNORECASE)
_WRITTEN_OUT = re.compile(r"(pwd|password)=(?!\$\{)", re.IGNORECASE)
# SQLAlchemy takes a number in every part of an address, in the place of a port too.
_STAND_IN = 10**40


def expanded(address: str) -> URL:
    """The address with the environment's values in the place of `${NAME}`, as they are, in the part where each stands.

    A variable by itself may hold a whole address. Raises SourceUnavailable.
    """
    values = _values(address)
    if alone := _VARIABLE.fullmatch(address):
        return _parsed(values[alone[1]], f"what {alone[1]} holds")
    url, filled = _stood_in(address, values)
    port = filled(str(url.port or ""))
    if port and not (port.isascii() and port.isdecimal()):
        raise SourceUnavailable(f"the port of the address {shown(address)} is no number: correct the variable")
    query = {
        filled(name): filled(value) if isinstance(value, str) else tuple(map(filled, value))
        for name, value in url.query.items()
    }
    username, password, host, database = (
        part and filled(part) for part in (url.username, url.password, url.host, url.database)
    )
    return URL.create(filled(url.drivername), username, password, host, int(port) if port else None, database, query)


def shown(address: str) -> str:
    """The address without its password, and without its options, of which one may be another password."""
    if _VARIABLE.fullmatch(address):
        return address
    try:
        url, filled = _stood_in(address, {name: f"${{{name}}}" for name in _VARIABLE.findall(address)})
    except SourceUnavailable:
        return "an address that cannot be read"
    return filled(url.set(query={}).render_as_string(hide_password=True))


def redacted(said: str, address: str, url: URL) -> str:
    """What a driver said, without what variables hold, and without passwords."""
    hidden = dict.fromkeys(_passwords(url), "***") | {value: f"${{{name}}}" for name, value in _values(address).items()}
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        for written in (secret, quote(secret), quote_plus(secret)):
            said = said.replace(written, hidden[secret])
    return said


def holds_password(address: str) -> bool:
    """Whether a password is written out in the address; raises SourceUnavailable."""
    if _VARIABLE.fullmatch(address):
        return False
    url, filled = _stood_in(address, {name: f"${{{name}}}" for name in _VARIABLE.findall(address)})
    return any(
        _WRITTEN_OUT.search(secret) if "=" in secret else _VARIABLE.sub("", secret)
        for secret in map(filled, _passwords(url))
    )


def _passwords(url: URL) -> Iterator[str]:
    if url.password is not None:
        yield str(url.password)
    for name, values in url.normalized_query.items():
        if _SECRET.search(name):
            yield from values


def _values(address: str) -> dict[str, str]:
    names = dict.fromkeys(_VARIABLE.findall(address))
    if missing := [name for name in names if name not in os.environ]:
        raise SourceUnavailable(
            f"the address {shown(address)} needs the environment variable {', '.join(missing)}: set it"
        )
    return {name: os.environ[name] for name in names}


def _stood_in(address: str, values: dict[str, str]) -> tuple[URL, Callable[[str], str]]:
    """The address in its parts, in which numbers stand in for variables, and what puts values in their place."""
    numbers = {name: str(_STAND_IN + place) for place, name in enumerate(values)}
    url = _parsed(_VARIABLE.sub(lambda found: numbers[found[1]], address), "the address")

    def filled(part: str) -> str:
        for name, number in numbers.items():
            part = part.replace(number, values[name])
        return part

    return url, filled


def _parsed(address: str, what: str) -> URL:
    """The address in its parts; it is not repeated where these are unclear, since any may be of a password."""
    try:
        url = make_url(address)
    except (SQLAlchemyError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):
        raise SourceUnavailable(
            f"{what} cannot be read as one of SQLAlchemy: write sqlite:///FILE, or {_FORM}, where variables take "
            "a password as it is, and %40 %3A %2F %25 stand for @ : / %"
        )
    return url
