import re

import pytest

from router.errors import InvalidKey, KeyRequired, RevokedKey, ScopeMissing
from router.keys import LOCAL, SCOPES, ApiKey, Caller, Keyring, Scope, hash_of, new_key


def key(*scopes: Scope, revoked_ms: int | None = None) -> tuple[ApiKey, str]:
    made, text = new_key("test", frozenset(scopes), None, 1)
    return ApiKey(made.id, made.name, made.scopes, made.hash, None, 1, revoked_ms), text


def test_a_new_key_has_256_random_bits_and_keeps_only_their_hash() -> None:
    made, text = key("predict")
    assert re.fullmatch(r"tk_[0-9a-f]{12}_[0-9a-f]{64}", text)
    assert text.split("_")[1] == made.id
    assert made.hash == hash_of(text)
    assert text.split("_")[2] not in repr(made)
    assert key("predict")[1] != text


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_allows_its_scopes_and_admin_all(scope: Scope) -> None:
    for other in SCOPES:
        assert key(other)[0].allows(scope) == (other in {scope, "admin"})


def test_without_any_key_everybody_may_call() -> None:
    keyring = Keyring([])
    assert keyring.is_open
    assert keyring.caller(None) == keyring.caller("whatever") == Caller()
    Caller().require("admin")
    assert Caller().actor == LOCAL


def test_a_caller_is_known_by_the_key() -> None:
    made, text = key("read")
    caller = Keyring([key("admin")[0], made]).caller(text)
    assert caller.key == made
    assert caller.actor == f"key {made.id} (test)"
    caller.require("read")
    with pytest.raises(ScopeMissing, match=f"API key '{made.id}' has the scopes read, but this call needs 'admin'"):
        caller.require("admin")


def test_with_keys_a_call_without_one_is_refused() -> None:
    with pytest.raises(KeyRequired, match="Authorization: Bearer KEY"):
        Keyring([key("admin")[0]]).caller(None)


def test_a_wrong_key_is_refused_and_not_repeated() -> None:
    made, text = key("admin")
    other_id = key("admin")[1].split("_")[1]
    wrong = [
        "",
        "tk",
        "tk_",
        f"tk_{made.id}",
        f"tk_{made.id}_",
        text[:-1],
        text + "0",
        text.upper(),
        text.replace("tk_", "xx_"),
        text.replace(made.id, other_id),
        f"tk_{made.id}_{'0' * 64}",
        f"tk_{made.id}_é\x00",
    ]
    for each in wrong:
        with pytest.raises(InvalidKey) as caught:
            Keyring([made]).caller(each)
        assert made.id not in str(caught.value)


def test_a_revoked_key_is_refused_and_revoking_the_last_locks() -> None:
    made, text = key("admin", revoked_ms=2)
    keyring = Keyring([made])
    assert not keyring.is_open
    assert not keyring.has_usable_key
    with pytest.raises(RevokedKey, match=f"API key '{made.id}' is revoked"):
        keyring.caller(text)
    with pytest.raises(InvalidKey):
        keyring.caller(f"tk_{made.id}_{'0' * 64}")
    with pytest.raises(KeyRequired):
        keyring.caller(None)
