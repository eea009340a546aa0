"""What a model takes and gives, and the way from typed rows to the arrays that it computes on."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample

Kind: TypeAlias = Literal["number", "boolean", "category"]
Output: TypeAlias = Literal["probability", "number"]

# Models may compute in float32, where anything larger would turn into infinity; NaN fails both bounds.
LARGEST = float(np.finfo(np.float32).max)
TYPES: dict[Kind, Any] = {
    "number": Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)],
    "boolean": bool,
    "category": str,
}


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named input; a nullable one may be null in a request, but may not be left out."""

    name: str
    kind: Kind
    nullable: bool = False


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The features of a model in the order of declaration, and whether it gives a probability or a number."""

    features: tuple[Feature, ...]
    output: Output

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names or "" in names:
            raise InvalidSample("a signature needs at least one feature, and every feature needs a name")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidSample(f"features named more than once: {', '.join(map(repr, twice))}")

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """The features that become columns of `Batch.numbers`: numbers and booleans."""
        return tuple(feature for feature in self.features if feature.kind != "category")

    @property
    def categories(self) -> tuple[Feature, ...]:
        """The features that become columns of `Batch.categories`."""
        return tuple(feature for feature in self.features if feature.kind == "category")

    def accepts(self, other: "Signature") -> list[str]:
        """Why a model with signature `other` cannot serve requests made for this one; empty when it can."""
        ours = {feature.name: feature for feature in self.features}
        theirs = {feature.name: feature for feature in other.features}
        differences = [f"feature {name!r} is missing from the model" for name in ours if name not in theirs]
        differences += [f"the model needs feature {name!r} as well" for name in theirs if name not in ours]
        for name in ours.keys() & theirs.keys():
            differences += _differences(ours[name], theirs[name])
        if self.output != other.output:
            differences.append(f"the output is a {other.output}, not a {self.output}")
        return sorted(differences)


def _differences(ours: Feature, theirs: Feature) -> list[str]:
    if ours.kind != theirs.kind:
        return [f"feature {ours.name!r} is a {theirs.kind}, not a {ours.kind}"]
    if ours.nullable and not theirs.nullable:
        return [f"feature {ours.name!r} may be null, which the model does not take"]
    return []


@lru_cache(maxsize=1024)
def input_struct(signature: Signature) -> type[msgspec.Struct]:
    """The type of one input row: all features required, no other fields, finite numbers only."""
    fields: list[tuple[str, Any]] = []
    for feature in signature.features:
        base = TYPES[feature.kind]
        fields.append((_attribute(feature.name), base | None if feature.nullable else base))
    return msgspec.defstruct(
        "Inputs",
        fields,
        rename={_attribute(feature.name): feature.name for feature in signature.features},
        frozen=True,
        forbid_unknown_fields=True,
    )


def _attribute(name: str) -> str:
    """The attribute of a feature: its name, or a code made from it when Python would not take the name."""
    plain = name.isidentifier() and not name.startswith("_")
    return name if plain else "_" + name.encode().hex()


class Batch(NamedTuple):
    """Rows as arrays, columns in signature order: numbers float64 [n, k] (null is NaN, booleans are 0 and 1)
    and categories, str objects [n, c] (null is the empty string).
    """

    numbers: NDArray[np.float64]
    categories: NDArray[np.object_]

    def joined(self) -> NDArray[Any]:
        """One array, numbers before categories; of objects when there are categories."""
        if not self.categories.shape[1]:
            return self.numbers
        return np.concatenate([self.numbers.astype(np.object_), self.categories], axis=1)

    def take(self, rows: NDArray[np.intp]) -> "Batch":
        """The batch of some of the rows."""
        return Batch(self.numbers[rows], self.categories[rows])


class BatchEncoder:
    """Turns decoded rows into a batch; one encoder serves any row type that has the signature's features."""

    def __init__(self, signature: Signature) -> None:
        self._numbers = _row_getter(signature.numbers)
        self._categories = _row_getter(signature.categories)
        self._widths = len(signature.numbers), len(signature.categories)

    def encode(self, rows: Sequence[msgspec.Struct]) -> Batch:
        """The batch of the rows, which are trusted to be what `input_struct` decodes."""
        n, (k, c) = len(rows), self._widths
        # numpy reads None as NaN, so null numbers cost nothing.
        numbers = np.array([self._numbers(row) for row in rows], dtype=np.float64)
        categories = np.array([[value or "" for value in self._categories(row)] for row in rows], dtype=np.object_)
        return Batch(numbers.reshape(n, k), categories.reshape(n, c))


def _row_getter(features: tuple[Feature, ...]) -> Callable[[Any], tuple[Any, ...]]:
    attributes = [_attribute(feature.name) for feature in features]
    if len(attributes) > 1:
        return attrgetter(*attributes)
    return lambda row: tuple(getattr(row, attribute) for attribute in attributes)
