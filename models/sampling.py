"""Rows of a sample as a request would carry them, and what a model made for other software predicts for them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample, UnsupportedModel
from models.frame import decode_rows
from models.manifest import Sample
from models.rows import few
from models.runtime import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from models.signature import Batch, BatchEncoder, Output, Signature, input_struct


def encoded(rows: Sequence[Mapping[str, Any]], signature: Signature) -> Batch:
    """The batch of rows as JSON carries them; raises InvalidSample where a request of them would be refused."""
    if not rows:
        raise InvalidSample("there are no rows")
    try:
        typed = msgspec.convert([dict(row) for row in rows], list[input_struct(signature)])  # type: ignore[misc]
    except msgspec.ValidationError as error:
        raise InvalidSample(f"the sample does not fit the signature: {error}") from None
    return BatchEncoder(signature).encode(typed)


def sample_of(predict: Callable[[Batch], NDArray[np.float64]], batch: Batch, signature: Signature, who: str) -> Sample:
    """Some rows of a batch with what the model predicts for each alone, which must be what it predicts among others."""
    some = few(batch)
    alone = [predict(some.take(np.array([row]))).item() for row in range(len(some.numbers))]
    check_values(alone, signature.output, who)
    for row, (one, other) in enumerate(zip(alone, predict(some).tolist(), strict=True)):
        if not math.isclose(one, other, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            raise UnsupportedModel(
                f"{who} predicts {one!r} for row {row} alone, but {other!r} among others: rows must not depend on "
                "each other"
            )
    return Sample(tuple(decode_rows(some, signature)), tuple(alone))


def check_values(values: Sequence[float], output: Output, who: str) -> None:
    """Raise InvalidSample, which names the row, for what is no finite number or no probability."""
    for row, value in enumerate(values):
        if not math.isfinite(value) or (output == "probability" and not 0 <= value <= 1):
            raise InvalidSample(f"{who} predicts {value!r} for row {row}, which is no {output}")
