"""What every document is made of: names, references, shares, and the refusal of unknown fields."""

import re
from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)")]
Reference = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*@[1-9][0-9]*$(?!\n)")]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400)]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what clients send: immutable, and an unknown field is an error."""


_PATH = re.compile(r" - at `\$\.?(?P<path>.*)`$")


def split_path(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Return msgspec's message without its path, and the path as a field name such as `arms[0].model`."""
    text = str(error)
    match = _PATH.search(text)
    if match is None:
        return text, None
    return text[: match.start()], match["path"] or None
