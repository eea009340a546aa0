"""Generates a lake of any size, to the ledger's own schema: units that return, three arms, a click and a score."""

from pathlib import Path
from typing import NamedTuple

import deltalake
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from analysis.schema import TABLES
from tests.analysis.ledgers import CLICK, DAY_MS, START_MS, Ledger, write_table
from tests.metrics import BRIER

NAME = "boosting-vs-logistic"
DAYS = 14
NOW_MS = START_MS + (DAYS + 1) * DAY_MS
SHARES = (0.5, 0.25, 0.25)
_DECISIONS_PER_UNIT = 4
_ID_BYTES, _TIME_BYTES = 33, 6


class Day(NamedTuple):
    """What was decided on one day, in order of time [decisions]."""

    ids: pa.Array
    times_ms: NDArray[np.int64]
    units: NDArray[np.int64]
    arms: NDArray[np.int64]
    predictions: NDArray[np.float64]


def write_lake(lake: Path, decisions: int, seed: int = 1) -> None:
    """Write so many decisions, and about as many outcomes, over two weeks."""
    ledger = Ledger()
    ledger.add_experiment(
        [BRIER, {**CLICK, "role": "secondary"}], arms=("control", "boosting", "forest"), epochs=(SHARES,)
    )
    for name in ("experiments", "arms", "epochs"):
        write_table(lake, name, getattr(ledger, name))
    generator = np.random.default_rng(seed)
    arm_of = generator.choice(len(SHARES), max(decisions // _DECISIONS_PER_UNIT, 1), p=SHARES)
    for number in track(range(DAYS), description=f"writing {decisions:,}", console=Console(stderr=True)):
        size = decisions // DAYS + (number < decisions % DAYS)
        day = _decide(generator, START_MS + number * DAY_MS, size, arm_of)
        _append(lake, "decisions", number, _decisions(day))
        _append(lake, "outcomes", number, _outcomes(day, generator))


def _decide(generator: np.random.Generator, start_ms: int, size: int, arm_of: NDArray[np.int64]) -> Day:
    times = start_ms + np.sort(generator.integers(0, DAY_MS, size))
    units = generator.integers(0, len(arm_of), size)
    return Day(_ids(times, generator), times, units, arm_of[units], generator.beta(1.5, 3.0, size).round(6))


def _ids(times_ms: NDArray[np.int64], generator: np.random.Generator) -> pa.Array:
    """A time, and what cannot be guessed."""
    count = len(times_ms)
    raw = np.empty((count, _ID_BYTES), dtype=np.uint8)
    raw[:, :_TIME_BYTES] = times_ms.astype(">u8").view(np.uint8).reshape(count, 8)[:, -_TIME_BYTES:]
    raw[:, _TIME_BYTES:] = generator.integers(0, 256, (count, _ID_BYTES - _TIME_BYTES), dtype=np.uint8)
    offsets = np.arange(count + 1, dtype=np.int32) * _ID_BYTES
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(raw)])


def _decisions(day: Day) -> dict[str, object]:
    models = pa.array([f"flight-delay-{arm}@1" for arm in range(len(SHARES))]).take(pa.array(day.arms))
    return {
        "id": day.ids,
        "decided_ms": day.times_ms,
        "endpoint": "flight-delay",
        "experiment_id": 1,
        "epoch": 1,
        "arm": day.arms,
        "propensity": np.array(SHARES)[day.arms],
        "unit": pc.binary_join_element_wise("unit-", pa.array(day.units).cast(pa.string()), ""),
        "model": models,
        "served_model": models,
        "inputs": '[{"distance":1400.0,"carrier":"UA","hour":17}]',
        "predictions": pc.binary_join_element_wise("[", pa.array(day.predictions).cast(pa.string()), "]", ""),
    }


def _outcomes(day: Day, generator: np.random.Generator) -> dict[str, object]:
    """Most decisions get a label, a tenth of them a click; the arms differ a little in both."""
    size = len(day.arms)
    late = generator.uniform(size=size) < day.predictions * (1 - 0.02 * day.arms)
    labelled = np.flatnonzero(generator.uniform(size=size) < 0.9)
    clicked = np.flatnonzero(generator.uniform(size=size) < 0.1 + 0.005 * day.arms)
    of = np.concatenate([labelled, clicked])
    is_label = np.arange(len(of)) < len(labelled)
    occurred = day.times_ms[of] + generator.integers(1, 3_000_000, len(of))
    return {
        "decision_id": day.ids.take(pa.array(of)),
        "metric": pc.if_else(pa.array(is_label), "late", "click"),
        "item": 0,
        "outcome_id": "",
        "version": 0,
        "value": np.where(is_label, late[of].astype(np.float64), 1.0),
        "prediction": pa.array(day.predictions[of], mask=~is_label),
        "experiment_id": 1,
        "arm": day.arms[of],
        "counted": True,
        "occurred_ms": occurred,
        "received_ms": occurred + 1000,
    }


def _append(lake: Path, name: str, number: int, columns: dict[str, object]) -> None:
    schema = ibis.schema(TABLES[name]).to_pyarrow()
    size = next(len(values) for values in columns.values() if isinstance(values, pa.Array | np.ndarray))
    arrays = [_filled(columns.get(field.name), size, field.type) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    day = str(np.datetime64(START_MS + number * DAY_MS, "ms").astype("datetime64[D]"))
    deltalake.write_deltalake(
        lake / "logs" / name,
        table.append_column("day", pa.repeat(pa.scalar(day), size)),
        mode="append",
        partition_by=["day"],
    )


def _filled(values: object, size: int, dtype: pa.DataType) -> pa.Array:
    if values is None:
        return pa.nulls(size, dtype)
    if isinstance(values, pa.Array | np.ndarray):
        return pa.array(values).cast(dtype)
    return pa.repeat(pa.scalar(values, dtype), size)
