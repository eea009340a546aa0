"""What must not stand in logs, messages and representations."""

import pytest
from rich.pretty import pretty_repr
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from router.errors import CannotStart
from router.ledger.database import open_database, shown
from router.settings import Settings

PASSWORD = "hunter2"


def test_settings_are_shown_without_secrets() -> None:
    settings = Settings(
        database=f"postgresql://user:{PASSWORD}@host/name",
        secret=f"{PASSWORD}-of-enough-length",
        url=f"http://user:{PASSWORD}@router:8400",
        api_key=f"tk_0_{PASSWORD}",
    )
    for shown_as in (repr(settings), str(settings), f"{settings!r}", pretty_repr(settings)):
        assert PASSWORD not in shown_as
        assert "port=8400" in shown_as
    assert "api_key=None" in repr(Settings())


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://user:{PASSWORD}@host/name",
        f"postgresql://user:{PASSWORD}@host:5432/name?sslmode=require",
        f"postgresql://host/name?user=me&password={PASSWORD}",
        f"postgresql://host/name?sslpassword={PASSWORD}&sslkey=file",
    ],
)
def test_database_addresses_are_shown_without_passwords(address: str) -> None:
    assert PASSWORD not in shown(address)
    assert "host" in shown(address)


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://user:{PASSWORD}@host:a-port/name",
        f"postgresql://user:a@{PASSWORD}:{PASSWORD}@host:{PASSWORD}/name",
        f"postgresql://user:{PASSWORD}@[::1/name",
    ],
)
def test_an_unreadable_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(CannotStart, match="TURNOUT_DATABASE cannot be read as an address") as caught:
        open_database(address)
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_absent_database_is_named_without_its_password() -> None:
    with pytest.raises(
        CannotStart, match=r"cannot open the ledger postgresql\+?\w*://user:\*\*\*@127.0.0.1:9/name"
    ) as caught:
        open_database(f"postgresql://user:{PASSWORD}@127.0.0.1:9/name")
    assert PASSWORD not in str(caught.value)


def test_failing_statements_do_not_print_their_rows(engine: Engine) -> None:
    with pytest.raises(SQLAlchemyError) as caught, engine.connect() as connection:
        connection.execute(text("insert into nowhere values (:value)"), {"value": PASSWORD})
    assert "nowhere" in str(caught.value)
    assert PASSWORD not in str(caught.value)
