"""Whether every epoch follows from the one before, and the newest from its experiment's document."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from itertools import chain, groupby
from operator import itemgetter
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from router.allocation.bandit import read_basis, table_counts
from router.allocation.tables import fixed_counts
from router.assignment.epochs import Epoch, fresh, from_runs, reweight
from router.assignment.hashing import BUCKETS
from router.documents import Bandit
from router.ledger import schema
from router.verification.experiments import Known
from router.verification.findings import Findings
from router.verification.reading import INTEGER, OPTIONAL, TEXT, Kinds, Row, of_experiment, stream

_REMEMBERED = 2048
_KINDS: Kinds = {
    "experiment_id": INTEGER,
    "epoch": INTEGER,
    "runs": TEXT,
    "traffic": INTEGER,
    "basis": TEXT | OPTIONAL,
}

_Buckets = Annotated[int, msgspec.Meta(ge=1, le=BUCKETS)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=255)]
_runs = msgspec.json.Decoder(list[tuple[_Buckets, _Number]])


class Drawable(NamedTuple):
    """An epoch as draws are checked against it."""

    table: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    traffic: int
    basis: str | None


class Epochs:
    """Looks epochs up and keeps the latest used, since there may be more of them than fit into memory."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: OrderedDict[tuple[int, int], Drawable | None] = OrderedDict()

    def find(self, experiment_id: int, number: int) -> Drawable | None:
        """Return an epoch, or None where there is none that can be read."""
        key = (experiment_id, number)
        if key not in self._found:
            self._found[key] = self._read(*key)
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _read(self, experiment_id: int, number: int) -> Drawable | None:
        epochs = schema.epochs
        query = select(epochs.c.runs, epochs.c.traffic, epochs.c.basis).where(
            epochs.c.experiment_id == experiment_id, epochs.c.epoch == number
        )
        found = self._connection.execute(query).one_or_none()
        table = None if found is None else read_table(found.runs)
        if found is None or table is None or type(found.traffic) is not int:
            return None
        array = np.frombuffer(table, np.uint8)
        return Drawable(array, np.bincount(array, minlength=256), found.traffic, found.basis)


def read_table(runs: str) -> bytes | None:
    """Return the table of 10 000 buckets that a row's `runs` describe, or None if they describe none."""
    try:
        found = _runs.decode(runs)
    except (msgspec.DecodeError, TypeError):
        return None
    # Added up first: runs that somebody altered must not become a table of any size.
    return from_runs(found) if sum(count for count, _ in found) == BUCKETS else None


def check_epochs(
    connection: Connection, experiments: Mapping[int, Known], findings: Findings, only: int | None = None
) -> None:
    """Check that every epoch is the cheapest way from the one before to its own shares."""
    statement = f"select {', '.join(_KINDS)} from epochs{of_experiment(only, 'epochs')} order by experiment_id, epoch"  # noqa: S608
    chunks = findings.sound("epochs", stream(connection, statement), _KINDS, lambda row: f"{row[0]} {row[1]}")
    started = {key for key, known in experiments.items() if known.state != "draft" and only in {None, key}}
    for key, rows in groupby(chain.from_iterable(chunks), key=itemgetter(0)):
        started.discard(key)
        if key in experiments:
            if experiments[key].state == "draft":
                findings.fail(
                    "epochs", f"of experiment {experiments[key].name!r}", "epoch", "none, for it is a draft", "some"
                )
            _History(experiments[key], findings).check(rows)
        else:
            findings.fail("epochs", f"of experiment {key}", "experiment_id", "an experiment of this ledger", key)
    for key in sorted(started):
        findings.fail("epochs", f"of experiment {experiments[key].name!r}", "epoch", "one at least", None)


class _History:
    """The epochs of one experiment, checked one after the other."""

    def __init__(self, known: Known, findings: Findings) -> None:
        self._known = known
        self._findings = findings

    def check(self, rows: Iterable[Row]) -> None:
        number, newest = 0, None
        for _, found, runs, traffic, basis in rows:
            if found != number + 1:
                self._fail(found, "epoch", f"{number + 1}, the next", found)
                newest = None
            number, before = found, newest
            table = read_table(runs)
            newest = None if table is None else Epoch(number, table, traffic, basis)
            if newest is None:
                self._fail(number, "runs", f"arms of {BUCKETS} buckets in all", runs)
            else:
                self._check_epoch(newest, before)
        if newest is not None:
            self._check_newest(newest)

    def _check_epoch(self, epoch: Epoch, before: Epoch | None) -> None:
        if strangers := set(epoch.table) - self._known.numbers:
            self._fail(epoch.number, "runs", f"arms {sorted(self._known.numbers)}", sorted(strangers))
        if epoch.traffic not in range(BUCKETS + 1):
            self._fail(epoch.number, "traffic", f"0 to {BUCKETS} buckets", epoch.traffic)
        counts = Counter(epoch.table)
        if isinstance(self._known.document.allocation, Bandit):
            self._check_basis(epoch, counts)
        if before is not None and not self._is_in_order:
            self._check_table(epoch, reweight(before.table, counts), f"the fewest moves from epoch {before.number}")
        elif epoch.number == 1 or self._is_in_order:
            self._check_table(epoch, fresh(counts), "the arms one after the other")

    @property
    def _is_in_order(self) -> bool:
        """Whether every epoch is laid out anew: requests have no arm that they could keep."""
        document = self._known.document
        return document.by_request and isinstance(document.allocation, Bandit)

    def _check_basis(self, epoch: Epoch, counts: Counter[int]) -> None:
        """Check that a bandit's shares follow from what it says that was known."""
        try:
            basis = read_basis(epoch.basis or "")
            expected = {number: count for number, count in table_counts(self._known.document, basis).items() if count}
        except (msgspec.DecodeError, ValueError, LookupError) as error:
            self._fail(epoch.number, "basis", "what was known of every live arm", error)
            return
        if dict(counts) != expected:
            self._fail(epoch.number, "shares", expected, dict(sorted(counts.items())))

    def _check_table(self, epoch: Epoch, expected: bytes, description: str) -> None:
        if epoch.table != expected:
            differ = sum(mine != theirs for mine, theirs in zip(epoch.table, expected, strict=True))
            self._fail(epoch.number, "runs", description, f"{differ} other buckets")

    def _check_newest(self, newest: Epoch) -> None:
        document = self._known.document
        if newest.traffic != round(document.traffic * BUCKETS):
            self._fail(newest.number, "traffic", round(document.traffic * BUCKETS), newest.traffic)
        if isinstance(document.allocation, Bandit):
            return
        wanted = {arm: count for arm, count in fixed_counts(document).items() if count}
        counts = dict(sorted(Counter(newest.table).items()))
        if counts != wanted:
            self._fail(newest.number, "shares", wanted, counts)

    def _fail(self, number: int, what: str, expected: object, found: object) -> None:
        self._findings.fail("epochs", f"{self._known.name!r} epoch {number}", what, expected, found)
