"""What every document is made of: names, references, shares, and the refusal of unknown fields."""

import re
from typing import Annotated

import msgspec

GIVE = "give"
"""Under this key a type's `extra` says what to give, for errors, where the type alone would not say it plainly."""

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)",
        extra={GIVE: "a text of 1 to 63 small letters, digits, - and _, beginning with a letter or digit"},
    ),
]
Reference = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*@[1-9][0-9]*$(?!\n)",
        extra={GIVE: 'a model version, such as "boosting@3"'},
    ),
]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what clients send: immutable, and an unknown field is an error."""


_PATH = re.compile(r" - at (`key` in )?`\$\.?(?P<path>.*)`$")


def split_path(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Return msgspec's message without its path, and the path as a field name such as `arms[0].model`."""
    text = str(error)
    match = _PATH.search(text)
    if match is None:
        return text, None
    return text[: match.start()], match["path"] or None
