"""The bar that commands show while they work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestration.staleness import Progress as Made

_WIDTH = 38


@contextmanager
def bar(console: Console, title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar, and the call that moves it: done, total, and what is being done."""
    columns = (TextColumn(f"{{task.description:<{_WIDTH}}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int, description: str) -> None:
            shown = description if len(description) <= _WIDTH else f"{description[: _WIDTH - 3]}..."
            progress.update(task, completed=done, total=total, description=shown)

        yield advance


@contextmanager
def materializing(console: Console, title: str) -> Iterator[Callable[[Made], None]]:
    """A bar for `materialize_stale`."""
    with bar(console, title) as advance:

        def show(made: Made) -> None:
            what = ", ".join(made.assets) or title
            advance(made.done, made.total, f"{what} {made.partition}" if made.partition else what)

        yield show
