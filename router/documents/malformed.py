"""What is wrong with JSON that does not fit its type: the field, what stands there, and what to write instead.

msgspec's own errors speak of Python's types, and lack the value and the choices. Nor does a path of theirs say which
key of an object it went through, as in `allocation.weights[...]`. All this is found out only where there is an error.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from router.documents.base import GIVE, split_path
from router.errors import InvalidRequest

Step = str | int

_ANY = "[...]"
_INDEX = re.compile(r"\[(\d+)\]")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]*)`(?P<bound>.*?)(, got .*)?", re.DOTALL)
_WORDS: Mapping[str, tuple[str, ...]] = {
    "float": ("a number",),
    "int": ("a whole number",),
    "str": ("a text",),
    "array": ("a list",),
    "object": ("an object, {..}",),
    "bool": ("true", "false"),
    "null": ("null",),
}
"""In the order in which they are told."""
_LONGEST = 60
_API_KEY = re.compile(r"tk_[A-Za-z0-9_-]+")


class Fault(NamedTuple):
    """What is wrong with a body; `known` are the fields that the object has, where one is missing or unknown."""

    field: str | None
    reason: str
    known: tuple[str, ...] = ()

    def within(self, place: str) -> "Fault":
        """Return the fault as one of the body that has the content at this place."""
        field = self.field or ""
        return self._replace(field=f"{place}{field}" if field.startswith("[") or not field else f"{place}.{field}")

    def error(self, kind: type[InvalidRequest] = InvalidRequest, whole: str = "the body") -> InvalidRequest:
        """Return the error to raise; `whole` is what it names where no single field is wrong."""
        known = f" (fields here: {', '.join(self.known)})" if self.known else ""
        return kind(f"{self.field or whole}: {self.reason}{known}", field=self.field)


def fault_in(body: bytes | msgspec.Raw, error: msgspec.DecodeError, type_: Any) -> Fault:
    """Return what is wrong with a body, given what decoding it as this type raised; never raises itself."""
    if not isinstance(error, msgspec.ValidationError):
        return Fault(None, f"it is not valid JSON: {error}; NaN and Infinity are not JSON either")
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        # Such as a number beyond the largest one, which only fails where its place is reached.
        message, path = split_path(error)
        return Fault(path, _plain(message))
    return fault_at(content, error, type_)


def fault_at(content: Any, error: msgspec.ValidationError, type_: Any) -> Fault:
    """Return what is wrong with decoded JSON, given what converting it to this type raised; never raises itself."""
    message, path = split_path(error)
    try:
        return _fault(content, error, type_)
    except Exception:  # noqa: BLE001 (whoever asked is told what msgspec says, rather than that we failed)
        return Fault(path, _plain(message))


def shown(value: Any) -> str:
    """Return how an error shows a JSON value: the beginning of a long one, and no API key."""
    return _cut(msgspec.json.encode(value).decode())


def _fault(content: Any, error: msgspec.ValidationError, type_: Any) -> Fault:
    message, path = split_path(error)
    fails = _Fails(content, str(error), type_)
    steps = list(_steps(content, path or "", fails))
    kinds = _kinds_at(inspect.type_info(type_), content, steps)
    if (about := _FIELD.fullmatch(message)) is not None:
        name, known = about[2], tuple(_fields(kinds))
        reason = _missing(kinds, name) if about[1].startswith("missing") else _unknown(name, known)
        return Fault(_written([*steps, name]), reason, known)
    value = _at(content, steps)
    if " - at `key` in " in str(error):
        key = fails.key(steps, value)
        return Fault(_written(steps), f"here stands the key {shown(key)}; give {_wanted([], message)}")
    return Fault(_written(steps) or None, f"here stands {shown(value)}; {_remedy(kinds, message)}")


def _missing(kinds: Iterable[inspect.Type], name: str) -> str:
    told = _told([inner for kind in kinds for inner in _inside(kind, name)])
    return f"it is missing; {f'give {_either(told)}' if told else 'add it'}"


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name[:_LONGEST], known, n=1)
    return f"there is no such field; {f'did you mean {close[0]}?' if close else 'remove it'}"


class _Fails:
    """Finds the key that an error is about: the one without which the content would have another error, or none."""

    def __init__(self, content: Any, error: str, type_: Any) -> None:
        self._content = content
        self._error = error
        self._type = type_

    def key(self, steps: Sequence[Step], place: Mapping[str, Any]) -> str:
        keys = list(place)
        while len(keys) > 1:
            half = keys[: len(keys) // 2]
            keys = half if self._with(steps, half) else keys[len(half) :]
        if not self._with(steps, keys):
            raise LookupError(f"no single key is to blame for {self._error!r}")
        return keys[0]

    def _with(self, steps: Sequence[Step], keys: Iterable[str]) -> bool:
        """Return whether the error stays if the object at these steps has these keys only."""
        try:
            msgspec.convert(_only(self._content, steps, keys), self._type)
        except msgspec.ValidationError as other:
            return str(other) == self._error
        return False


def _steps(content: Any, path: str, fails: _Fails) -> Iterator[Step]:
    """Yield the keys and indices of a path; a key may have dots in it, so those of the content decide."""
    found: list[Step] = []
    while path:
        place = _at(content, found)
        step: Step
        if path.startswith(_ANY):
            step, path = fails.key(found, place), path[len(_ANY) :]
        elif (index := _INDEX.match(path)) is not None:
            step, path = int(index[1]), path[index.end() :]
        else:
            path = path.removeprefix(".")
            name = max((key for key in place if key and re.match(rf"{re.escape(key)}([.\[]|$)", path)), key=len)
            step, path = name, path[len(name) :]
        found.append(step)
        yield step


def _only(content: Any, steps: Sequence[Step], keys: Iterable[str]) -> Any:
    """Return the content in which the object at these steps has these keys only."""
    if not steps:
        return {key: content[key] for key in keys}
    first, *rest = steps
    copied = content.copy()
    copied[first] = _only(content[first], rest, keys)
    return copied


def _at(content: Any, steps: Iterable[Step]) -> Any:
    for step in steps:
        content = content[step]
    return content


def _kinds_at(kind: inspect.Type, content: Any, steps: Iterable[Step]) -> list[inspect.Type]:
    """Return the types that may stand at these steps."""
    kinds = _members(kind, content)
    for step in steps:
        content = content[step]
        kinds = [member for each in kinds for inner in _inside(each, step) for member in _members(inner, content)]
    return kinds


def _members(kind: inspect.Type, content: Any) -> list[inspect.Type]:
    """Return the members of a union, or the type itself; of tagged objects the one whose tag the content has."""
    members: list[inspect.Type] = list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]
    return [each for each in members if _has_tag(each, content)] or members


def _has_tag(kind: inspect.Type, content: Any) -> bool:
    if not isinstance(kind, inspect.StructType) or kind.tag_field is None:
        return False
    return isinstance(content, dict) and content.get(kind.tag_field) == kind.tag


def _inside(kind: inspect.Type, step: Step) -> Iterator[inspect.Type]:
    match kind:
        case inspect.StructType(tag_field=field, tag=tag) if step == field:
            yield inspect.LiteralType((tag,))
        case inspect.StructType(fields=fields):
            yield from (field.type for field in fields if field.encode_name == step)
        case inspect.DictType(value_type=inner) if isinstance(step, str):
            yield inner
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner) if isinstance(step, int):
            yield inner
        case inspect.TupleType(item_types=inners) if isinstance(step, int):
            yield inners[step]


def _fields(kinds: Iterable[inspect.Type]) -> list[str]:
    """Return the fields of the object, if it is known which of several it is to be."""
    objects = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
    if len(objects) != 1:
        return []
    tag, names = objects[0].tag_field, [field.encode_name for field in objects[0].fields]
    return names if tag is None else [tag, *names]


def _remedy(kinds: Sequence[inspect.Type], message: str) -> str:
    return f"give {wanted}" if (wanted := _wanted(kinds, message)) else _plain(message)


def _wanted(kinds: Sequence[inspect.Type], message: str) -> str | None:
    """Return what to give, in plain words: what the type tells, or what msgspec expects."""
    if told := _told(kinds):
        return _either(told)
    if (expected := _EXPECTED.fullmatch(message)) is None:
        return None
    types = expected["types"].split(" | ")
    if "float" in types and "int" in types:
        types.remove("int")
    known = [word for name, words in _WORDS.items() if name in types for word in words]
    return _either([*known, *(name for name in types if name not in _WORDS)]) + expected["bound"]


def _told(kinds: Sequence[inspect.Type]) -> list[str]:
    """Return the choices, or what the type's author says to give; nothing where the type says it all."""
    told = [str(choice) for kind in kinds if isinstance(kind, inspect.LiteralType) for choice in kind.values]
    extras = [kind.extra or {} for kind in kinds if isinstance(kind, inspect.Metadata)]
    told += [extra[GIVE] for extra in extras if GIVE in extra]
    return told + ["null" for kind in kinds if isinstance(kind, inspect.NoneType)] if told else []


def _plain(message: str) -> str:
    """Return what msgspec says where nothing better is known, without its Python."""
    if (wanted := _wanted([], message)) is not None:
        return f"give {wanted}"
    if message == "Number out of range":
        return "the number is out of range; give one within 1.8e308 of 0"
    return message if len(message) <= 2 * _LONGEST else f"{message[: 2 * _LONGEST]}..."


def _either(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _written(steps: Iterable[Step]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_cut(step)}" for step in steps).removeprefix(".")


def _cut(text: str) -> str:
    """Return the beginning of a text, without the API keys in it."""
    text = _API_KEY.sub("tk_...", text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
