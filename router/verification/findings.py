"""What a verification finds: failures, and counts of what it looked at."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from router.decision_id import SIZE, encode
from router.verification.reading import Kinds, Row, split_odd

_LONGEST = 80
_KEPT = 100


class Failure(NamedTuple):
    """One thing in the ledger that does not follow from what it must follow from."""

    table: str
    subject: str
    """Which row; where there is a decision, its id in text form."""
    what: str
    """The column, or the property, that is wrong."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.table} {self.subject}: {self.what}: expected {self.expected}, found {self.found}"


class Summary(NamedTuple):
    """What came of a verification."""

    failures: int
    first: tuple[Failure, ...]
    """The first hundred failures."""
    checked: Mapping[str, int]
    """Rows by table."""
    waiting: int
    """Outcomes that wait for their decision, which another router still has to hand in."""
    out_of_range: int
    """Outcomes that came before their decision, for an item that it turned out not to have; they count nowhere."""
    unlike_first: int
    """Decisions of sticky experiments drawn in another epoch than their unit's first assignment: that could not be read
    while the database was away."""
    older: int
    """Statistics of decisions older than any that the ledger still has; they cannot be rebuilt."""
    partial: int
    """Rows of evidence of experiments that had such decisions, or some before there was evidence: not to be rebuilt."""
    seconds: float


class Findings:
    """Collects failures and counts; tells `report` of every failure and `progress` of every chunk of rows."""

    def __init__(
        self,
        report: Callable[[Failure], None] = lambda _: None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._report = report
        self._progress = progress
        self._failures = 0
        self._first: list[Failure] = []
        self._checked: Counter[str] = Counter()
        self.waiting = 0
        self.out_of_range = 0
        self.unlike_first = 0
        self.older = 0
        self.partial = 0

    def fail(self, table: str, subject: str, what: str, expected: object, found: object) -> None:
        """Note a failure."""
        failure = Failure(table, subject, what, shown(expected), shown(found))
        self._failures += 1
        if self._failures <= _KEPT:
            self._first.append(failure)
        self._report(failure)

    def sound(
        self, table: str, chunks: Iterator[Sequence[Row]], kinds: Kinds, subject: Callable[[Row], str]
    ) -> Iterator[Sequence[Row]]:
        """Yield a table's rows, counted, without those that hold what their columns cannot hold; these are failures."""
        for rows in chunks:
            good, odd = split_odd(rows, kinds)
            for row, column, expected, found in odd:
                self.fail(table, subject(row), column, expected, repr(found))
            yield good
            self._checked[table] += len(rows)
            self._progress(len(rows))

    def count(self, table: str, rows: int) -> None:
        """Note that so many rows of a table were checked."""
        self._checked[table] += rows

    def summary(self, seconds: float) -> Summary:
        """Return what was found."""
        return Summary(
            failures=self._failures,
            first=tuple(self._first),
            checked=dict(self._checked),
            waiting=self.waiting,
            out_of_range=self.out_of_range,
            unlike_first=self.unlike_first,
            older=self.older,
            partial=self.partial,
            seconds=seconds,
        )


def shown(value: object) -> str:
    """Return a value as a failure shows it: in one line, and no longer than that."""
    text = "null" if value is None else str(value)
    return _cut(text if text and text.isprintable() else repr(text))


def shown_id(raw: object) -> str:
    """Return a decision id's text, or what stands in its place."""
    if isinstance(raw, bytes):
        return encode(raw) if len(raw) == SIZE else _cut(f"x'{raw.hex()}'")
    return shown(raw)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
