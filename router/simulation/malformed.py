"""What is wrong with what is no plan: msgspec's error, with the value that it is about and what to write instead.

A path of msgspec's does not say which key of an object it went through, as in `world.arms[...].probability`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from router.documents import split_path

Step = str | int
Convert = Callable[[Any], object]

_ANY = "..."
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_TYPES = {
    "`float`": "a number",
    "`int`": "a whole number",
    "`str`": "a text",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "an object, {..}",
    "`null`": "null",
}
_CHOICES = {
    "world.delay.kind": "fixed or exponential",
    "experiment.allocation.kind": "split or thompson",
}
_LONGEST = 60


def explained(content: Any, error: msgspec.ValidationError, convert: Convert) -> tuple[str, str]:
    """Return the field that is wrong, and what stands there and what should, given what `convert` raised on content."""
    message, path = split_path(error)
    steps = _resolved(content, list(_steps(path or "")), str(error), convert)
    if (about := _FIELD.match(message)) is not None:
        field = _written([*steps, about[2]])
        return field, "it is missing; add it" if about[1].startswith("missing") else "there is no such field; remove it"
    field = _written(steps) or "the plan"
    return field, f"here stands {_shown(_at(content, steps))}; {_remedy(field, message)}"


def _remedy(field: str, message: str) -> str:
    if field in _CHOICES:
        return f"give {_CHOICES[field]}"
    if not message.startswith("Expected "):
        return f"{message}: docs/simulation.md and docs/api.md say what may stand here"
    wanted = message.removeprefix("Expected ").partition(", got ")[0]
    for name, words in _TYPES.items():
        wanted = wanted.replace(name, words)
    return f"give {wanted.replace(' | ', ' or ')}"


def _steps(path: str) -> Iterator[Step]:
    for name, index, any_key in _STEP.findall(path):
        yield name or any_key or int(index)


def _resolved(content: Any, steps: Sequence[Step], error: str, convert: Convert) -> list[Step]:
    """Return the steps with keys for dots: a key is meant if the same error comes where the object has no other."""
    found: list[Step] = []
    for step in steps:
        if step == _ANY:
            objects = _at(content, found)
            step = next((key for key in objects if _fails(_only(content, found, key), error, convert)), _ANY)
        found.append(step)
    return found


def _fails(content: Any, error: str, convert: Convert) -> bool:
    try:
        convert(content)
    except msgspec.ValidationError as other:
        return str(other) == error
    return False


def _only(content: Any, steps: Sequence[Step], key: str) -> Any:
    """Return the content in which the object at these steps has this key only."""
    if not steps:
        return {key: content[key]}
    first, *rest = steps
    copied = content.copy()
    copied[first] = _only(content[first], rest, key)
    return copied


def _at(content: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        content = content[step]
    return content


def _written(steps: Sequence[Step]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}.."
