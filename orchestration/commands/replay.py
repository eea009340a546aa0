"""`turnout replay`: rows with labels as live traffic, to see what comes of it before there is any."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from orchestration import replay as sending
from orchestration.commands.explaining import PROGRESS, declared, explained
from orchestration.endpoints.declaration import Endpoint
from orchestration.labelled import Json, LabelledRequest, labelled_requests
from orchestration.lake import Lake
from orchestration.progress import bar
from router.client import Turnout
from router.commands.output import json_option, print_json, url_option
from router.settings import Settings, load

_HELD_BACK = 0.02
"""Labels come soon, so that few rows are enough to see what becomes of a rollout."""


class _Paced(NamedTuple):
    """A request that is not made before its time."""

    request: LabelledRequest
    not_before: float

    @property
    def unit(self) -> str:
        return self.request.unit

    def ask(self, router: Turnout, key: str) -> Json:
        time.sleep(max(0.0, self.not_before - time.monotonic()))
        return self.request.ask(router, key)

    def outcomes(self, reply: Mapping[str, Any]) -> Sequence[Json]:
        return self.request.outcomes(reply)


@click.command("replay")
@click.argument("name")
@click.option("--rows", type=click.IntRange(1), help="How many, the newest ones; by default all.")
@click.option("--per-second", type=click.FloatRange(0, min_open=True), help="How fast; by default as fast as it goes.")
@click.option("--key", default="replay", show_default=True, help="Another one makes the same rows decide anew.")
@url_option
@json_option
def replay(name: str, rows: int | None, per_second: float | None, key: str, url: str, as_json: bool) -> None:
    """Send rows that endpoint NAME was not trained on as live traffic, and their labels as outcomes.

    Labels come a little later, in any order, and one in fifty comes twice, as happens in life: it counts once. A row
    that was sent before, with the same key, decides nothing again.
    """
    settings = load()
    with explained():
        endpoint = declared(name)
        requests = labelled_requests(endpoint, _unseen(settings, endpoint, rows))
    begin, gap = time.monotonic(), 1 / per_second if per_second else 0.0
    with bar(PROGRESS, f"replaying {name}") as advance:
        counts = sending.replay(
            url,
            [_Paced(request, begin + place * gap) for place, request in enumerate(requests)],
            key=f"{key}/{name}",
            api_key=settings.api_key,
            held_back=_HELD_BACK,
            progress=lambda done: advance(done, len(requests), f"replaying {name}"),
        )
    if as_json:
        print_json({"endpoint": name, **counts._asdict()})
        return
    click.echo(
        f"{counts.requests:,} requests, {counts.decisions:,} decisions; {counts.outcomes:,} outcomes, "
        f"{counts.sent_twice:,} of them sent twice: {counts.accepted:,} accepted, {counts.duplicate:,} duplicates, "
        f"{counts.rejected:,} rejected"
    )


def _unseen(settings: Settings, endpoint: Endpoint, most: int | None) -> list[dict[str, Any]]:
    if endpoint.kind != "predict":
        raise click.UsageError(f"{endpoint.name} ranks lists, and rows alone make none: only predict endpoints replay")
    rows = Lake(settings.lake.resolve()).read(endpoint.data.validation.table)
    return [
        {str(name): value for name, value in row.items()} for row in rows.tail(most or len(rows)).to_dict("records")
    ]
