"""Experiments as the proofs need them, and whether the tables that describe them agree."""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
from sqlalchemy import Connection, select

from router.assignment.epochs import HOLDOUT, INTERLEAVED
from router.documents import Experiment, Interleave
from router.ledger import schema
from router.ledger.contributions import Fold, folds
from router.verification.findings import Findings

_STATES = {"draft", "running", "paused", "concluded"}


class Known(msgspec.Struct, frozen=True, dict=True):
    """An experiment whose document can be read."""

    id: int
    name: str
    endpoint: str
    state: str
    document: Experiment

    @cached_property
    def models(self) -> dict[int, str]:
        """The model version of every arm, by its number; all of them for lists that mix their rankings."""
        models = dict(enumerate(arm.model for arm in self.document.arms))
        if isinstance(self.document.allocation, Interleave):
            models[INTERLEAVED] = "+".join(models.values())
        return models

    @cached_property
    def numbers(self) -> frozenset[int]:
        """The numbers that may stand in a table."""
        return frozenset({*self.models, HOLDOUT})

    @cached_property
    def folds(self) -> Mapping[str, tuple[Fold, ...]]:
        """The statistics that outcomes feed, by the outcome's name."""
        names = {name for metric in self.document.metrics for name in metric.outcome_names()}
        return {name: folds(self.document, name) for name in names}

    @property
    def by_request(self) -> bool:
        """Whether the decision's nonce is drawn with, not its unit."""
        return self.document.by_request


def read_experiments(connection: Connection, findings: Findings) -> dict[int, Known]:
    """Return the experiments whose documents can be read, by their id; check what other tables say about them."""
    table = schema.experiments
    query = select(table.c.id, table.c.name, table.c.endpoint, table.c.state, table.c.document).order_by(table.c.id)
    endpoints, arms = set(connection.scalars(select(schema.endpoints.c.name))), _arms(connection)
    experiments = {}
    for key, name, endpoint, state, document in connection.execute(query):
        findings.count("experiments", 1)
        try:
            known = Known(key, name, endpoint, state, msgspec.json.decode(document, type=Experiment))
        except (msgspec.DecodeError, TypeError) as error:
            findings.fail("experiments", repr(name), "document", "the document of an experiment", error)
            continue
        experiments[key] = known
        for what, expected, found in _contradictions(known, arms[key], endpoints):
            findings.fail("experiments", repr(name), what, expected, found)
    return experiments


def _contradictions(
    known: Known, arms: Sequence[tuple[int, str, str]], endpoints: Container[str]
) -> Iterator[tuple[str, object, object]]:
    says = known.document
    if says.name != known.name:
        yield "name", says.name, known.name
    if says.endpoint != known.endpoint:
        yield "endpoint", says.endpoint, known.endpoint
    if says.endpoint not in endpoints:
        yield "endpoint", "an endpoint of this ledger", says.endpoint
    if known.state not in _STATES:
        yield "state", " or ".join(sorted(_STATES)), known.state
    if (numbered := [(number, arm.name, arm.model) for number, arm in enumerate(says.arms)]) != arms:
        yield "arms", numbered, arms


def _arms(connection: Connection) -> Mapping[int, list[tuple[int, str, str]]]:
    table = schema.arms
    query = select(table.c.experiment_id, table.c.arm, table.c.name, table.c.model)
    arms: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
    for key, number, name, model in connection.execute(query.order_by(table.c.experiment_id, table.c.arm)):
        arms[key].append((number, name, model))
    return arms
