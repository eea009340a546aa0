"""Which names of columns the lake can hold beside each other."""

from collections.abc import Iterable

ROW_ID = "row_id"
"""Column made for rows that have no key of their own, from all that they hold."""


def same_but_for_capitals(names: Iterable[str]) -> dict[str, str]:
    """Names that the lake, for which capitals are as small letters, takes for an earlier one; each with that one."""
    first: dict[str, str] = {}
    return {name: known for name in names if (known := first.setdefault(name.lower(), name)) != name}


def made_key(names: Iterable[str]) -> str:
    """A name for the column of keys that is still free."""
    taken, key = {name.lower() for name in names}, ROW_ID
    while key in taken:
        key += "_"
    return key
