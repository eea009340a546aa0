import os
from pathlib import Path

import pytest

from router.errors import CannotStart
from router.settings import Settings, load


def test_load_without_anything_gives_the_defaults(tmp_path: Path) -> None:
    assert load({}, tmp_path / "turnout.toml") == Settings()


def test_load_environment_wins_over_file(tmp_path: Path) -> None:
    config = tmp_path / "turnout.toml"
    config.write_text('port = 9000\nregistry = "elsewhere"\n')
    settings = load({"TURNOUT_PORT": "9001", "HOME": "/"}, config)
    assert settings.port == 9001
    assert settings.registry == Path("elsewhere")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TURNOUT_PORT": "many"}, "TURNOUT_PORT is wrong: Expected `int`, got `str`"),
        ({"TURNOUT_PORT": "70000"}, "TURNOUT_PORT is wrong: Expected `int` <= 65535"),
        ({"TURNOUT_DATABASE": "mysql://x"}, "TURNOUT_DATABASE is wrong"),
        ({"TURNOUT_SHADOW_QUEUE_SIZE": "0"}, "TURNOUT_SHADOW_QUEUE_SIZE is wrong: Expected `int` >= 1"),
        ({"TURNOUT_SHADOW_TIMEOUT_MS": "0.5"}, "TURNOUT_SHADOW_TIMEOUT_MS is wrong: Expected `int`"),
        ({"TURNOUT_SHADOW_MEMORY_BYTES": "1000"}, "TURNOUT_SHADOW_MEMORY_BYTES is wrong: Expected `int` >= 16777216"),
        ({"TURNOUT_PROT": "8400"}, "the environment sets 'prot', which is no setting; settings: database"),
    ],
)
def test_load_names_a_wrong_variable(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as caught:
        load(variables, tmp_path / "turnout.toml")
    assert message in str(caught.value)


def test_load_reads_the_limits_of_shadows(tmp_path: Path) -> None:
    config = tmp_path / "turnout.toml"
    config.write_text("shadow_timeout_ms = 250\nshadow_memory_bytes = 67_108_864\n")
    settings = load({"TURNOUT_SHADOW_QUEUE_SIZE": "7"}, config)
    limits = (settings.shadow_queue_size, settings.shadow_timeout_ms, settings.shadow_memory_bytes)
    assert limits == (7, 250, 64 * 2**20)


@pytest.mark.parametrize(
    ("text", "message"),
    [("port = 'x'", "port in"), ("prot = 1", "'prot', which is no setting"), ("port =", "cannot read settings")],
)
def test_load_names_a_wrong_file_entry(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "turnout.toml"
    config.write_text(text)
    with pytest.raises(CannotStart) as caught:
        load({}, config)
    assert message in str(caught.value)
    assert str(config) in str(caught.value)


def test_secrets_are_split_at_commas() -> None:
    settings = Settings(secret="a-new-secret-of-length, an-old-secret-of-length")
    assert settings.secrets() == ["a-new-secret-of-length", "an-old-secret-of-length"]


@pytest.mark.parametrize("secret", ["short", "x,a-secret-of-enough-length", ",,,,,,,,,,,,,,,,,,,,"])
def test_secrets_need_their_length_each(secret: str) -> None:
    with pytest.raises(CannotStart, match="a signing secret of TURNOUT_SECRET has"):
        Settings(secret=secret).secrets()


def test_secrets_refuse_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "ledger.secret").touch()
    with pytest.raises(CannotStart, match=r"ledger\.secret has 0 characters"):
        Settings(database=f"sqlite:///{tmp_path}/ledger.db").secrets()


def test_router_url_brackets_ipv6() -> None:
    assert Settings(host="::1").router_url == "http://[::1]:8400"


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path}/state/ledger.db")
    first = settings.secrets()
    assert settings.secrets() == first
    assert len(first[0]) >= 32
    kept = tmp_path / "state" / "ledger.secret"
    assert kept.stat().st_mode & 0o077 == 0
    assert os.listdir(kept.parent) == ["ledger.secret"]  # noqa: PTH208 (also counts left-over files)


def test_secrets_name_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(database=f"sqlite:///{tmp_path}/file/ledger.db")
    with pytest.raises(CannotStart, match="set TURNOUT_SECRET"):
        settings.secrets()
