"""Whether every decision is what its signed id says, and what its epoch draws."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from router.assignment.audience import Context, Scalar, takes
from router.assignment.hashing import BUCKETS
from router.decision_id import FORCED, NO_EXPERIMENT, Signer
from router.documents import Contextual, Endpoint
from router.ledger import schema
from router.ledger.contributions import ITEMS, NOTHING, Moments
from router.ledger.decided import items_of, read_predictions
from router.ledger.evidence import is_slow
from router.ledger.statistics import MS_PER_MINUTE
from router.verification.draws import Draws, Mismatch, mismatches
from router.verification.epochs import Epochs
from router.verification.evidence import Counts, Evidence
from router.verification.experiments import Known
from router.verification.findings import Findings, shown_id
from router.verification.ids import Integers, Said, nonces, unpack_all
from router.verification.ranks import Shown, rank_mismatches
from router.verification.reading import BYTES, INTEGER, NUMBER, OPTIONAL, TEXT, Kinds, Row, of_experiment, stream
from router.verification.regressions import Regressions
from router.verification.statistics import Statistic

_KINDS: Kinds = {
    "id": BYTES,
    "decided_ms": INTEGER,
    "endpoint": TEXT,
    "experiment_id": INTEGER | OPTIONAL,
    "epoch": INTEGER | OPTIONAL,
    "arm": INTEGER | OPTIONAL,
    "propensity": NUMBER,
    "unit": TEXT,
    "model": TEXT,
    "served_model": TEXT,
    "fallback": TEXT | OPTIONAL,
    "context": TEXT | OPTIONAL,
    "inputs": TEXT,
    "predictions": TEXT,
    "shown": TEXT | OPTIONAL,
    "draw": TEXT | OPTIONAL,
    "latency_ms": NUMBER | OPTIONAL,
}
_DRAWN = ("experiment_id", "epoch", "arm")
_NONE = -1

_context = msgspec.json.Decoder(dict[str, Scalar])
_inputs = msgspec.json.Decoder(list[msgspec.Raw])


class _Columns(NamedTuple):
    """A chunk of decisions, column by column."""

    id: Sequence[bytes]
    decided_ms: Sequence[int]
    endpoint: Sequence[str]
    experiment_id: Sequence[int | None]
    epoch: Sequence[int | None]
    arm: Sequence[int | None]
    propensity: Sequence[float]
    unit: Sequence[str]
    model: Sequence[str]
    served_model: Sequence[str]
    fallback: Sequence[str | None]
    context: Sequence[str | None]
    inputs: Sequence[str]
    predictions: Sequence[str]
    shown: Sequence[str | None]
    draw: Sequence[str | None]
    latency_ms: Sequence[float | None]


class Decisions:
    """Checks the decisions of a ledger."""

    def __init__(
        self,
        connection: Connection,
        signer: Signer,
        experiments: Mapping[int, Known],
        findings: Findings,
        regressions: Regressions,
    ) -> None:
        self._connection = connection
        self._signer = signer
        self._experiments = experiments
        self._epochs = Epochs(connection)
        self._kinds = _kinds_of_endpoints(connection)
        self._findings = findings
        self._regressions = regressions
        self.evidence = Evidence(experiments, self._epochs)
        """What decisions add to it, once all have been checked."""
        self.decided: dict[Statistic, Moments] = {}
        """How many items the drawn decisions had, by minute and arm; known once all have been checked."""

    def check(self, only: int | None = None) -> None:
        """Check every decision, or those of one experiment."""
        statement = f"select {', '.join(_KINDS)} from decisions{of_experiment(only, 'decisions')}"  # noqa: S608
        chunks = stream(self._connection, statement)
        for rows in self._findings.sound("decisions", chunks, _KINDS, lambda row: shown_id(row[0])):
            self._check_chunk(self._signed(rows))

    def _signed(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows with an id of ours: what the others say follows from nothing."""
        good = list(map(self._signer.signed, [row[0] for row in rows]))
        if all(good):
            return rows
        for row, is_good in zip(rows, good, strict=True):
            if not is_good:
                self._findings.fail("decisions", shown_id(row[0]), "signature", "one of our secrets", "none of them")
        return [row for row, is_good in zip(rows, good, strict=True) if is_good]

    def _check_chunk(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        columns = _Columns(*zip(*rows, strict=True))
        said = unpack_all(columns.id)
        found = [
            *_copies(columns, said),
            *_contents(columns),
            *self._by_experiment(columns, said),
            *self._lists(columns, said),
        ]
        for mismatch in sorted(found, key=itemgetter(0)):
            self._findings.fail("decisions", shown_id(columns.id[mismatch.place]), *mismatch[1:])

    def _by_experiment(self, columns: _Columns, said: Said) -> Iterator[Mismatch]:
        for key in np.unique(said.experiment_id).tolist():
            places = np.flatnonzero(said.experiment_id == key)
            if key == NO_EXPERIMENT:
                for place in places.tolist():
                    if columns.endpoint[place] not in self._kinds:
                        yield Mismatch(place, "endpoint", "an endpoint of this ledger", columns.endpoint[place])
            elif key not in self._experiments:
                for place in places.tolist():
                    yield Mismatch(place, "experiment_id", "an experiment of this ledger", key)
            else:
                known = self._experiments[key]
                yield from _named(known, columns, said, places.tolist())
                self._count(known, columns, said, places[said.epoch[places] != FORCED])
                yield from self._drawn(known, columns, said, places[said.epoch[places] != FORCED])
                yield from _forced(known, said, places[said.epoch[places] == FORCED])

    def _lists(self, columns: _Columns, said: Said) -> Iterator[Mismatch]:
        listed = zip(columns.endpoint, columns.shown, columns.draw, strict=True)
        for place, (endpoint, shown, draw) in enumerate(listed):
            if shown is None and draw is None and self._kinds.get(endpoint) != "rank":
                continue
            key = int(said.experiment_id[place])
            known = self._experiments.get(key)
            by_request = known is not None and known.by_request
            value = nonces([columns.id[place]])[0].hex() if by_request else columns.unit[place]
            row = Shown(
                endpoint,
                key,
                int(said.arm[place]),
                columns.fallback[place],
                columns.inputs[place],
                columns.predictions[place],
                shown,
                draw,
                value,
            )
            yield from rank_mismatches(place, row, self._kinds, self._experiments)

    def _count(self, known: Known, columns: _Columns, said: Said, places: Integers) -> None:
        """Count the items of drawn decisions as the router does when it records them."""
        where, drawn = places.tolist(), Said(*(column[places] for column in said))
        items = [items_of(columns.predictions[place], columns.shown[place]) for place in where]
        minutes = drawn.decided_ms // MS_PER_MINUTE
        self._count_items(known.id, minutes, drawn.arm, np.array(items, np.int64))
        if self._regressions.count(known.id):
            for minute, arm, number, place in zip(minutes.tolist(), drawn.arm.tolist(), items, where, strict=True):
                self._regressions.decided(Statistic(minute, known.id, arm, ITEMS), number, columns.context[place])
        counts = Counts(
            units=[columns.unit[place] for place in where],
            items=items,
            failed=[columns.fallback[place] is not None for place in where],
            slow=[is_slow(known.document, columns.latency_ms[place]) for place in where],
        )
        self.evidence.decided(known, drawn, counts)

    def _count_items(self, experiment_id: int, minutes: Integers, arms: Integers, items: Integers) -> None:
        keys, places, counts = np.unique(minutes << 8 | arms, return_inverse=True, return_counts=True)
        totals, squares = (np.bincount(places, each, len(counts)) for each in (items, items * items))
        columns = (keys >> 8, keys & 255, counts, totals, squares)
        for minute, arm, *moments in zip(*(column.tolist() for column in columns), strict=True):
            statistic = Statistic(minute, experiment_id, arm, ITEMS)
            self.decided[statistic] = self.decided.get(statistic, NOTHING) + Moments(*moments)

    def _drawn(self, known: Known, columns: _Columns, said: Said, places: Integers) -> Iterator[Mismatch]:
        if not len(places):
            return
        where = places.tolist()
        units = [columns.unit[place] for place in where]
        values = (
            [nonce.hex() for nonce in nonces([columns.id[place] for place in where])] if known.by_request else units
        )
        by_context = isinstance(known.document.allocation, Contextual)
        contexts = [_read_context(columns.context[place]) for place in where] if by_context else ()
        draws = Draws(units, values, said.epoch[places], said.arm[places], said.slots[places], contexts)
        for mismatch in mismatches(known, self._epochs, draws):
            yield mismatch._replace(place=where[mismatch.place])
        if known.document.audience:
            yield from _outside_audience(known, columns, where)


def _kinds_of_endpoints(connection: Connection) -> dict[str, str]:
    table = schema.endpoints
    kinds: dict[str, str] = {}
    for name, document in connection.execute(select(table.c.name, table.c.document)):
        try:
            kinds[name] = msgspec.json.decode(document, type=Endpoint).kind
        except msgspec.DecodeError:
            kinds[name] = "unknown"
    return kinds


def _copies(columns: _Columns, said: Said) -> Iterator[Mismatch]:
    """Yield the columns that differ from the id, which says the same."""
    outside = said.experiment_id == NO_EXPERIMENT
    expected = {
        "decided_ms": said.decided_ms,
        **{name: np.where(outside, _NONE, getattr(said, name)) for name in _DRAWN},
        "propensity": said.slots / BUCKETS,
    }
    for name, wanted in expected.items():
        column = getattr(columns, name)
        there = np.array([_NONE if value is None else value for value in column] if name in _DRAWN else column)
        for place in np.flatnonzero(there != wanted).tolist():
            yield Mismatch(place, name, "null" if wanted[place] == _NONE else wanted[place], column[place])


def _contents(columns: _Columns) -> Iterator[Mismatch]:
    """Yield what no router writes."""
    served = zip(columns.model, columns.served_model, columns.fallback, strict=True)
    for place, (model, served_model, fallback) in enumerate(served):
        if not model:
            yield Mismatch(place, "model", "a model version", model)
        elif (model == served_model) != (fallback is None):
            expected = f"{model}, without a fallback" if fallback is None else f"another than {model}, after {fallback}"
            yield Mismatch(place, "served_model", expected, served_model)
    for place, (inputs, predictions) in enumerate(zip(columns.inputs, columns.predictions, strict=True)):
        try:
            rows, values = len(_inputs.decode(inputs)), len(read_predictions(predictions))
        except msgspec.DecodeError as error:
            yield Mismatch(place, "predictions", "numbers for a list of inputs", error)
            continue
        if rows != values or not rows:
            yield Mismatch(place, "predictions", f"one for each of {rows} inputs", values)
    for place, context in enumerate(columns.context):
        if _read_context(context) is None:
            yield Mismatch(place, "context", "an object of text, numbers and truth values", context)
    yield from _latencies(columns.latency_ms)


def _latencies(found: Iterable[float | None]) -> Iterator[Mismatch]:
    for place, latency_ms in enumerate(found):
        if latency_ms is not None and not 0 <= latency_ms < math.inf:
            yield Mismatch(place, "latency_ms", "milliseconds, or null", latency_ms)


def _outside_audience(known: Known, columns: _Columns, places: Sequence[int]) -> Iterator[Mismatch]:
    for place in places:
        context = _read_context(columns.context[place])
        if context is not None and not takes(known.document.audience, context):
            expected = f"one that the audience of {known.name!r} takes"
            yield Mismatch(place, "context", expected, columns.context[place])


def _read_context(text: str | None) -> Context | None:
    """Return the context that a row has, or None if it cannot be read."""
    try:
        return {} if text is None else _context.decode(text)
    except msgspec.DecodeError:
        return None


def _named(known: Known, columns: _Columns, said: Said, places: Sequence[int]) -> Iterator[Mismatch]:
    """Yield what the experiment's document says otherwise."""
    endpoint, models, arms = known.document.endpoint, known.models, said.arm.tolist()
    for place in places:
        if columns.endpoint[place] != endpoint:
            yield Mismatch(place, "endpoint", endpoint, columns.endpoint[place])
        # Which model was champion at the time, and served the holdout, is not on record.
        expected = models.get(arms[place])
        if expected is not None and columns.model[place] != expected:
            yield Mismatch(place, "model", expected, columns.model[place])


def _forced(known: Known, said: Said, places: Integers) -> Iterator[Mismatch]:
    for place in places.tolist():
        if int(said.arm[place]) not in known.models:
            yield Mismatch(place, "arm", f"an arm of {known.name!r}", said.arm[place])
        if said.slots[place] != BUCKETS:
            yield Mismatch(place, "propensity", "1.0, since the arm was forced", said.slots[place] / BUCKETS)
