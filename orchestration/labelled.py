"""Rows with labels as live traffic: the requests that they would have made, and what became of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestration.endpoints.declaration import Endpoint
from router.client import Turnout

Json = dict[str, Any]
Row = Mapping[str, Any]


class LabelledRequest(NamedTuple):
    """Asks for one row's prediction; its label becomes known, unless it never did."""

    endpoint: str
    unit: str
    inputs: Json
    context: Json
    label: str
    value: float | None

    def ask(self, router: Turnout, key: str) -> Json:
        """Make the call; the same key never decides twice."""
        return router.predict(self.endpoint, unit=self.unit, inputs=self.inputs, context=self.context, id=key)

    def outcomes(self, reply: Mapping[str, Any]) -> Sequence[Json]:
        """What becomes known, as rows for `POST /v1/outcomes`."""
        if self.value is None:
            return ()
        return ({"decision_id": reply["decision_id"], "metric": self.label, "value": self.value},)


def labelled_requests(
    endpoint: Endpoint, rows: Iterable[Row], context: Callable[[Row], Json] = lambda _: {}
) -> list[LabelledRequest]:
    """One request per row, in the given order; its key is the unit."""
    return [
        LabelledRequest(
            endpoint.name,
            row[endpoint.data.row_key],
            inputs_of(endpoint, row),
            context(row),
            endpoint.label,
            known(row[endpoint.label]),
        )
        for row in rows
    ]


def inputs_of(endpoint: Endpoint, row: Row) -> Json:
    """The features of a row as a request carries them."""
    return {name: known(row[name]) for name in endpoint.features}


def known(value: Any) -> Any:
    """The value, or null in the place of NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
