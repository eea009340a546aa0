"""What whole columns of decision ids say: the arrays of `decision_id.unpack`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from router.decision_id import SIZE

Integers = npt.NDArray[np.int64]

_NONCE = slice(17, 25)


class Said(NamedTuple):
    """What ids say, one array per field of a DecisionId."""

    decided_ms: Integers
    experiment_id: Integers
    epoch: Integers
    arm: Integers
    slots: Integers


def unpack_all(ids: Sequence[bytes]) -> Said:
    """Return the contents of ids of the right size."""
    raw = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, SIZE)
    return Said(
        decided_ms=_number(raw[:, :6]),
        experiment_id=_number(raw[:, 7:10]),
        epoch=_number(raw[:, 10:14]),
        arm=_number(raw[:, 14:15]),
        slots=_number(raw[:, 15:17]),
    )


def nonces(ids: Sequence[bytes]) -> list[bytes]:
    """Return the random bytes of ids, which an arm drawn by request is drawn with."""
    return [raw[_NONCE] for raw in ids]


def _number(digits: npt.NDArray[np.uint8]) -> Integers:
    """Return big-endian numbers, one per row."""
    padded = np.zeros((len(digits), 8), np.uint8)
    padded[:, 8 - digits.shape[1] :] = digits
    return padded.view(">i8").ravel().astype(np.int64)
