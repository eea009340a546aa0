import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from models.registry import Registry
from router import cli
from router.keys import Keyring
from router.ledger.audit import AuditTables
from router.ledger.database import upgraded
from router.ledger.keys import KeyTables
from router.settings import Settings
from tests.databases import BACKENDS, database
from tests.router.keyrings import make_key
from tests.router.servers import serving


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, in either kind."""
    with database(request.param, tmp_path) as address:
        yield address


def turnout(url: str, *arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env={"TURNOUT_DATABASE": url, **environment})


def create(url: str, *scopes: str, name: str = "shop") -> tuple[str, str]:
    """Return the new key's id and text."""
    done = turnout(url, "key", "create", "--name", name, *(f"--scope={scope}" for scope in scopes))
    assert done.exit_code == 0, done.output
    text = done.stdout.strip()
    return text.split("_")[1], text


def listed(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(turnout(url, "key", "list", "--json").stdout)
    return found


def keyring(url: str) -> Keyring:
    with upgraded(url) as engine:
        return Keyring(KeyTables(engine).read_all())


def test_the_first_key_is_made_before_any_router_runs(url: str) -> None:
    done = turnout(url, "key", "create", "--name", "shop", "--scope", "predict", "--scope", "outcome", "--rate", "2.5")
    assert done.exit_code == 0, done.output
    # Only the key is on standard output, so that it can go into a variable or a file.
    assert re.fullmatch(r"tk_[0-9a-f]{12}_[0-9a-f]{64}\n", done.stdout)
    assert "(shop) allows outcome, predict" in done.stderr
    assert "It is the first: from now on every call needs a key" in done.stderr
    key = keyring(url).caller(done.stdout.strip()).key
    assert key is not None
    assert (key.name, sorted(key.scopes), key.rate_per_s) == ("shop", ["outcome", "predict"], 2.5)
    second = turnout(url, "key", "create", "--name", "other", "--scope", "read")
    assert "It is the first" not in second.stderr


def test_keys_are_listed_and_never_shown_again(url: str) -> None:
    assert "no keys: anybody on the router's machine may call it" in turnout(url, "key", "list").stdout
    assert listed(url) == []
    key_id, text = create(url, "read", "predict")
    assert listed(url)[0] | {"created_at": ""} == {
        "id": key_id,
        "name": "shop",
        "scopes": ["predict", "read"],
        "rate_per_s": None,
        "created_at": "",
        "last_used_at": None,
        "revoked_at": None,
    }
    shown = turnout(url, "key", "list").output
    assert key_id in shown
    assert "predict, read" in shown
    assert "never" in shown
    assert text.split("_")[2] not in shown


def test_a_key_is_revoked_once(url: str) -> None:
    key_id, text = create(url, "admin")
    assert f"key {key_id} (shop) is revoked" in turnout(url, "key", "revoke", key_id).stdout
    assert listed(url)[0]["revoked_at"] is not None
    assert "revoked" in turnout(url, "key", "list").output
    again = turnout(url, "key", "revoke", key_id)
    assert again.exit_code == 0
    assert f"key {key_id} (shop) was revoked already, at 20" in again.stdout
    assert not keyring(url).has_usable_key
    assert text.split("_")[2] not in again.output


def test_an_unknown_key_cannot_be_revoked(url: str) -> None:
    done = turnout(url, "key", "revoke", "nobody")
    assert done.exit_code == 1
    assert "there is no API key 'nobody'; see: turnout key list" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "shop"], "Missing option '--scope'"),
        (["--scope", "read"], "Missing option '--name'"),
        (["--name", "shop", "--scope", "write"], "'write' is not one of 'predict', 'outcome', 'read', 'admin'"),
        (["--name", " ", "--scope", "read"], "1 to 100 printable characters"),
        (["--name", "a\x00b", "--scope", "read"], "1 to 100 printable characters"),
        (["--name", "a\nb", "--scope", "read"], "1 to 100 printable characters"),
        (["--name", "a" * 101, "--scope", "read"], "1 to 100 printable characters"),
        (["--name", "shop", "--scope", "read", "--rate", "0"], "0.0 is not in the range x>=0.001"),
        (["--name", "shop", "--scope", "read", "--rate", "nan"], "nan is no number of calls per second"),
        (["--name", "shop", "--scope", "read", "--rate", "inf"], "inf is no number of calls per second"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path, options: list[str], message: str) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    done = turnout(url, "key", "create", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert listed(url) == []


@pytest.mark.parametrize("named", [True, False])
def test_the_audit_log_names_who_sat_at_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    def getuser() -> str:
        if named:
            return "ann"
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", getuser)
    url = f"sqlite:///{tmp_path}/ledger.db"
    key_id, _ = create(url, "admin")
    turnout(url, "key", "revoke", key_id)
    with upgraded(url) as engine:
        actors = [(entry.action, entry.actor) for entry in AuditTables(engine).page(10, None)]
    expected = "command line (ann)" if named else "command line"
    assert actors == [("revoke", expected), ("create", expected)]


def test_other_commands_show_the_key_of_the_settings(settings: Settings, registry: Registry) -> None:
    assert registry.names()
    _, text = make_key(settings.database, "read")
    _, admin = make_key(settings.database, "admin")
    with serving(settings) as address:
        audit = turnout(settings.database, "audit", "--limit", "1", "--url", address, TURNOUT_API_KEY=admin)
        assert f"key {admin.split('_')[1]}" in audit.stdout
        assert "a test" in audit.stdout
        older = turnout(settings.database, "audit", "--before", "2", "--json", "--url", address, TURNOUT_API_KEY=admin)
        assert [entry["after"]["scopes"] for entry in json.loads(older.stdout)] == [["read"]]
        call = ("endpoint", "list", "--url", address)
        assert "no endpoints yet" in turnout(settings.database, *call, TURNOUT_API_KEY=f"{text}\n").stdout
        without = turnout(settings.database, *call)
        assert without.exit_code == 1
        assert "401: this router needs an API key" in without.stderr
        assert "commands show the key in TURNOUT_API_KEY" in without.stderr
        broken = turnout(settings.database, *call, TURNOUT_API_KEY=f"{text}\nmore")
        assert broken.exit_code == 1
        assert "send it whole" in broken.stderr
        assert text.split("_")[2] not in broken.output
