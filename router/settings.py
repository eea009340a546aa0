"""Settings: read once at the edge from turnout.toml and TURNOUT_* variables, typed, every wrong value named."""

import contextlib
import os
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from router.documents import split_path
from router.errors import CannotStart

_PREFIX = "TURNOUT_"
_SHORTEST_SECRET = 16
_CONFIG_FILE = Path("turnout.toml")
_SQLITE = "sqlite:///"
_HIDDEN = {"database", "secret", "url", "api_key"}
_DEFAULT_DATABASE = f"{_SQLITE}var/turnout.db"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be configured. A variable `TURNOUT_X` wins over `x` in turnout.toml."""

    database: Annotated[str, msgspec.Meta(pattern=r"^(sqlite:///|postgresql(\+psycopg)?://).+")] = _DEFAULT_DATABASE
    """`sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST:PORT/NAME` for several machines."""
    registry: Path = Path("var/registry")
    lake: Path = Path("var/lake")
    secret: str | None = None
    """Signs decision ids. Several, separated by commas: the first signs, all are accepted. Without one, a random
    secret is made beside the database at the first start."""
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8400
    url: str | None = None
    """Where commands and Dagster find the router, if not on this machine's `host` and `port`."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 1_048_576
    max_batch: Annotated[int, msgspec.Meta(ge=1)] = 1000
    queue_size: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    spool: Path = Path("var/spool")
    """Where decisions and outcomes are kept while the database is away; its own folder on every machine."""
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=1_048_576)] = 1_073_741_824
    """How large a process's spool may grow; beyond it requests are refused."""
    ledger_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """How long a commit may take before the database counts as away."""
    shadow_queue_size: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """How many decisions may wait for each shadow; beyond it they are not shown to it."""
    shadow_timeout_ms: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """How long a shadow may take for a decision before its process is replaced."""
    shadow_memory_bytes: Annotated[int, msgspec.Meta(ge=16_777_216)] = 536_870_912
    """How much memory a shadow may take to be loaded, and beyond that to predict."""
    api_key: str | None = None
    """What commands, the demo and Dagster show the router, once it has keys."""

    def __repr__(self) -> str:
        """Without what must not stand in a log."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "***" if name in _HIDDEN and value is not None else value) for name, value in fields]

    @property
    def router_url(self) -> str:
        """Where commands and Dagster find the router."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}"

    def secrets(self, *, make: bool = True) -> list[str]:
        """Return the signing secrets, newest first, making and keeping one when none is configured.

        Raises:
            CannotStart: A secret is too short or cannot be kept, or a shared ledger is used without one.
        """
        if self.secret is None:
            if not self.database.startswith(_SQLITE):
                raise CannotStart(
                    "routers that share a ledger need the same signing secret: set TURNOUT_SECRET on all of them, such "
                    "as to the output of: openssl rand -base64 32"
                )
            path = Path(self.database.removeprefix(_SQLITE)).with_suffix(".secret")
            if not make and not path.exists():
                raise CannotStart(f"the signing secret is not at {path}; set TURNOUT_SECRET to what signed the ids")
            return [_checked_secret(_kept_secret(path), str(path))]
        return [_checked_secret(part.strip(), "TURNOUT_SECRET") for part in self.secret.split(",")]


def load(environment: Mapping[str, str] | None = None, config: Path = _CONFIG_FILE) -> Settings:
    """Return the settings of this process.

    Raises:
        CannotStart: A value is wrong or a name is unknown; the message names it and where it was set.
    """
    variables = os.environ if environment is None else environment
    from_file = _read_config(config)
    from_environment = {
        name.removeprefix(_PREFIX).lower(): value for name, value in variables.items() if name.startswith(_PREFIX)
    }
    _refuse_unknown({str(config): from_file, "the environment": from_environment})
    try:
        return msgspec.convert({**from_file, **from_environment}, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        message, field = split_path(error)
        origin = f"{_PREFIX}{(field or '').upper()}" if field in from_environment else f"{field} in {config}"
        raise CannotStart(f"setting {origin} is wrong: {message}") from None


def _decode(type_: type, value: Any) -> Any:
    if type_ is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `{type_.__name__}`, got `{type(value).__name__}`")


def _read_config(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CannotStart(f"cannot read settings from {config}: {error}") from error


def _refuse_unknown(sources: Mapping[str, Mapping[str, Any]]) -> None:
    known = Settings.__struct_fields__
    for origin, values in sources.items():
        for name in values:
            if name not in known:
                raise CannotStart(f"{origin} sets {name!r}, which is no setting; settings: {', '.join(known)}")


def _checked_secret(secret: str, origin: str) -> str:
    if len(secret) < _SHORTEST_SECRET:
        raise CannotStart(
            f"a signing secret of {origin} has {len(secret)} characters; it needs {_SHORTEST_SECRET}, such as the "
            "output of: openssl rand -base64 32"
        )
    return secret


def _kept_secret(path: Path) -> str:
    """Return the secret stored at `path`; the first process to get there makes it, readable by its owner only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise CannotStart(f"cannot keep a signing secret at {path}: {error}; set TURNOUT_SECRET") from error


def _write_once(path: Path, text: str) -> None:
    """Link the complete file into place, so that of several processes one wins and none reads half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
