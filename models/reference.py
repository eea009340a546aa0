"""The name of one immutable model version: `flight-delay-logistic@3`."""

import re
from typing import NamedTuple, Self

from models.errors import InvalidReference

# Lower case only: a registry must mean the same on file systems that ignore case.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")


class ModelReference(NamedTuple):
    """A model version; ordered by name, then by version number."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name@version`; raises InvalidReference."""
        name, at, version = text.partition("@")
        if not at or not VERSION.fullmatch(version):
            raise InvalidReference(f"{text!r} is not a model version: write name@version, such as delay@3")
        return cls(checked_name(name), int(version))


def checked_name(name: str) -> str:
    """The same name when it can be a model's name and a folder's, else InvalidReference."""
    if not NAME.fullmatch(name):
        raise InvalidReference(
            f"{name!r} is not a model name: use 1 to 100 lower-case letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name
