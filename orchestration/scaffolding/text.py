"""The text of a new endpoint's file, laid out as the formatter would."""

import textwrap
from collections.abc import Iterable
from typing import Literal, NamedTuple

from orchestration.scaffolding.columns import Column, Columns

WIDTH = 120
_FEWEST_LEAF_ROWS, _MOST_LEAF_ROWS = 5, 50


class SourceText(NamedTuple):
    """How the source stands in the file."""

    call: str
    """Such as `Files("data")`."""
    imports: tuple[str, ...] = ()
    before: str = ""
    """Code that the call needs above it, with its blank lines."""


class Partitioning(NamedTuple):
    """Whether the source is read by month or day, and from which day on."""

    every: Literal["month", "day"]
    start: str


def file_text(name: str, source: SourceText, columns: Columns, partitioning: Partitioning | None) -> str:
    """The whole file."""
    above = [
        f'"""The endpoint `{name}`: how likely is a row\'s label to be 1?"""\n\n{_imports(source)}',
        f'LABEL = {quoted(columns.label.name)}\n"""1 when it happened, 0 when not, missing while nobody knows."""\n',
        _schema(columns),
        _features(columns),
    ]
    below = [_data(name, source, columns, partitioning), _rollout(), _endpoint(name, columns)]
    # The source's own code stays as it is: a query's lines are a text.
    return "\n".join([*map(_excused, above), *([source.before] if source.before else []), *map(_excused, below)])


def type_of(column: Column) -> str:
    """The column's type in the schema; a truth value that may be missing is a number."""
    kinds = {"category": "str", "time": '"datetime64[us, UTC]"', "number": "float", "boolean": "bool"}
    return "float" if column.kind == "boolean" and column.nullable else kinds[column.kind]


def _excused(part: str) -> str:
    """The part, where long names or paths make a line too long; the linter itself excuses what has no spaces."""
    return "\n".join(
        f"{line}  # noqa: E501" if len(line) > WIDTH and " " in line.strip() else line for line in part.split("\n")
    )


def _imports(source: SourceText) -> str:
    source_class = source.call.partition("(")[0]
    lines = [
        *source.imports,
        "import pandera.pandas as pa",
        "",
        "from models.recipe import boosting, logistic",
        "from orchestration.endpoints.declaration import Endpoint, RolloutPlan",
        f"from orchestration.sources import {source_class}, from_source",
    ]
    return "\n".join(lines) + "\n"


def _schema(columns: Columns) -> str:
    used = [column for column in (columns.row_key, columns.time, *columns.features) if column]
    lines = [f"        {quoted(column.name)}: {_declared(column)}," for column in used]
    nullable = ", nullable=True" if columns.label.nullable else ""
    lines.append(f"        LABEL: pa.Column(float, pa.Check.isin([0, 1]){nullable}),")
    return "\n".join(
        [
            "SCHEMA = pa.DataFrameSchema(",
            "    {",
            *lines,
            "    }",
            ")",
            '"""The columns to keep and what must hold for them, such as pa.Column(float, pa.Check.in_range(0, 100)).',
            "",
            'Rows that break it are not trained on."""',
            "",
        ]
    )


def _declared(column: Column) -> str:
    more = ", unique=True" if column.unique else ", nullable=True" if column.nullable else ""
    return f"pa.Column({type_of(column)}{more})"


def _features(columns: Columns) -> str:
    left_out = ""
    if columns.left_out:
        reasons = "; ".join(f"{name} ({why})" for name, why in columns.left_out.items())
        left_out = "\n".join(textwrap.wrap(f"Left out: {reasons}.", 118, initial_indent="# ", subsequent_indent="# "))
        left_out += "\n"
    tuple_ = _tuple([quoted(column.name) for column in columns.features], "FEATURES = ")
    return f'{left_out}{tuple_}\n"""What models see: it has to be known before the label is."""\n'


def _data(name: str, source: SourceText, columns: Columns, partitioning: Partitioning | None) -> str:
    arguments = [source.call, f'name="{name.replace("-", "_")}"', "schema=SCHEMA", "label=LABEL"]
    if columns.row_key:
        arguments.append(f"row_key={quoted(columns.row_key.name)}")
    if columns.time:
        arguments.append(f"time={quoted(columns.time.name)}")
    if partitioning:
        arguments += [f'every="{partitioning.every}"', f'start="{partitioning.start}"']
    validates = "The last rows by time validate." if columns.time else "Rows picked by a hash validate."
    return _call("DATA = from_source(", arguments) + f'"""{validates}"""\n'


def _rollout() -> str:
    return '''ROLLOUT = RolloutPlan(
    metrics=(
        {
            "name": "brier",
            "kind": "score",
            "score": "brier",
            "label": LABEL,
            "direction": "decrease",
            "role": "primary",
        },
    ),
    stages=(
        {"kind": "shadow", "min_decisions": 100},
        {"kind": "canary", "share": 0.2, "min_decisions": 50},
        {"kind": "split", "share": 0.5},
        {"kind": "champion", "control_share": 0.05},
    ),
    guardrails={"errors": 0.02},
    planned_decisions=2_000,
)
"""How a new model version becomes champion, by the labels that come back: unseen, for a few, for half, for all."""
'''


def _endpoint(name: str, columns: Columns) -> str:
    leaf = min(_MOST_LEAF_ROWS, max(_FEWEST_LEAF_ROWS, columns.rows // 100))
    return _call(
        "ENDPOINT = Endpoint(",
        [
            f'name="{name}"',
            "data=DATA",
            "features=FEATURES",
            "label=LABEL",
            f"recipes=(logistic(), boosting(iterations=100, leaves=15, leaf_rows={leaf}))",
            'champion="logistic"',
            "experiments=()",
            "rollout=ROLLOUT",
        ],
    )


def _call(opening: str, arguments: Iterable[str]) -> str:
    return "\n".join([opening, *(f"    {argument}," for argument in arguments), ")", ""])


def _tuple(items: list[str], prefix: str) -> str:
    line = f"{prefix}({', '.join(items)}{',' if len(items) == 1 else ''})"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{prefix}(", *(f"    {item}," for item in items), ")"])


def quoted(text: str) -> str:
    """The text as a literal, in the quotes that the formatter likes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    # What cannot be printed as Python writes it, a character at a time, since it chooses its quotes by the whole.
    return quote + "".join(repr(sign)[1:-1] for sign in text).replace(quote, f"\\{quote}") + quote
