"""From an ONNX graph that was made elsewhere to a model version that runs that very graph."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidSample, InvalidTensor, UnsupportedModel
from models.foreign_graph import ForeignGraph
from models.importing.given import Given
from models.importing.graph_files import read_graph
from models.importing.graph_inputs import Layout, inputs_of, laid_out
from models.importing.graph_outputs import GraphOutput, named_output, read_output
from models.importing.sample_files import Row
from models.libraries import installed_libraries
from models.manifest import Draft, Graph
from models.reference import ModelReference
from models.registry import registry_at
from models.rows import EVERY_ROW_LACKS, NULLS, with_probes
from models.runtime import ONNX_FILE
from models.sampling import check_values, encoded, sample_of
from models.signature import Batch, Feature, Kind, Signature
from models.tensors import InputTensors

WHO = "the graph"
MADE_UP: dict[Kind, Any] = {"number": 0.0, "boolean": False, "category": ""}


def import_graph(path: Path, given: Given) -> ModelReference:
    """Publish a graph after it has predicted the sample; raises UnsupportedModel or InvalidSample."""
    content, session = read_graph(path)
    inputs = inputs_of(session)
    texts = [each.tensor.name for each in inputs if each.is_text]
    texts += [feature.name for feature in given.features or () if feature.kind == "category"]
    rows = None if given.sample is None else given.sample.rows(texts)
    asked, notes = _asked(content, session, laid_out(inputs, rows, given.features), rows, given)
    draft = Draft(
        name=given.name,
        signature=asked.signature,
        runtime="onnx",
        float_width=None,
        libraries=installed_libraries(),
        graph=asked.graph,
        sample=sample_of(asked.predict, asked.batch, asked.signature, WHO),
        notes=(*given.notes, *_cautions(asked), *notes),
    )
    return registry_at(given.registry).publish(draft, {ONNX_FILE: content})


class _Asked(NamedTuple):
    """A graph that has answered the rows of the sample."""

    graph: Graph
    signature: Signature
    batch: Batch
    served: ForeignGraph

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """What the graph predicts; raises ValueError where it gives no prediction."""
        try:
            found = self.served.predict(batch)
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise ValueError(_first_line(error)) from error
        return found


def _cautions(asked: _Asked) -> Iterator[str]:
    """Yield what nobody can tell from the graph, and its makers should look at."""
    if asked.graph.output_key not in {None, 1}:
        yield f"the probability is that of class {asked.graph.output_key!r}"
    if whole := [tensor.name for tensor in asked.graph.tensors if "INT" in tensor.datatype]:
        yield f"the graph takes whole numbers only in {', '.join(whole)}: a request with another is refused"
    if nullable := [feature.name for feature in asked.signature.categories if feature.nullable]:
        yield (
            f"null reaches the graph as the empty string in {', '.join(nullable)}: compare its predictions there with "
            "those where it was trained"
        )


def _asked(
    content: bytes, session: Any, layout: Layout, rows: Sequence[Row] | None, given: Given
) -> tuple[_Asked, tuple[str, ...]]:
    """Ask for all rows, or for the complete ones when the graph refuses nulls that nobody declared; and a note."""
    if rows is None:
        made_up = {feature.name: MADE_UP[feature.kind] for feature in layout.features}
        note = "there was no sample: every load predicts a made-up row of zeros and empty strings"
        return _ask(content, session, layout, [made_up], given), (note,)
    try:
        return _ask(content, session, layout, rows, given), ()
    except (InvalidSample, UnsupportedModel):
        required = tuple(Feature(feature.name, feature.kind) for feature in layout.features)
        if given.features is not None or required == layout.features:
            raise
    asked = _ask(content, session, layout._replace(features=required), rows, given)
    left_out = len(rows) - len(asked.batch.numbers)
    return asked, (f"{WHO} refuses missing values: {left_out} rows of {len(rows)} were left out",)


def _ask(content: bytes, session: Any, layout: Layout, rows: Sequence[Row], given: Given) -> _Asked:
    batch = encoded(_servable(rows, layout.features), Signature(layout.features, "number"))
    place = _place(session, layout, batch, given)
    graph = Graph(
        inputs=layout.inputs,
        tensors=layout.tensors,
        output=place.name,
        output_column=place.column,
        output_key=place.key,
    )
    signature = Signature(layout.features, place.output)
    asked = _Asked(graph, signature, batch, ForeignGraph(content, graph, signature))
    predicted = asked.predict(batch)
    _check_nulls(batch, predicted)
    check_values(predicted.tolist(), signature.output, WHO)
    _check_nulls(*with_probes(asked.predict, batch, predicted, signature, WHO))
    return asked


def _check_nulls(batch: Batch, predicted: NDArray[np.float64]) -> None:
    """Raise UnsupportedModel where a null number makes the prediction null."""
    if not np.isfinite(predicted[np.isnan(batch.numbers).any(axis=1)]).all():
        raise UnsupportedModel(f"{WHO} predicts no number for {NULLS}")


def _place(session: Any, layout: Layout, batch: Batch, given: Given) -> GraphOutput:
    name = named_output(session, given.output)
    tensors = InputTensors(
        layout.tensors, Signature(layout.features, "number"), per_feature=layout.inputs == "per_feature"
    )
    try:
        (value,) = session.run([name], {tensor.name: tensor.array for tensor in tensors.of(batch)})
    except InvalidTensor as error:
        raise InvalidSample(str(error)) from error
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise InvalidSample(f"{WHO} does not predict these rows: {_first_line(error)}") from error
    return read_output(name, value, len(batch.numbers), given.output)


def _servable(rows: Sequence[Row], features: Sequence[Feature]) -> list[Row]:
    """Return the features of the rows that a request could carry."""
    if missing := [feature.name for feature in features if feature.name not in rows[0]]:
        raise InvalidSample(f"the sample has no column {', '.join(map(repr, missing))}")
    required = [feature.name for feature in features if not feature.nullable]
    kept = [row for row in rows if all(row.get(name) is not None for name in required)]
    if not kept:
        raise InvalidSample(EVERY_ROW_LACKS)
    return [{feature.name: _value(feature, row.get(feature.name)) for feature in features} for row in kept]


def _value(feature: Feature, value: Any) -> Any:
    """Return a value as a request carries it; files often write 0 and 1 for booleans."""
    return bool(value) if feature.kind == "boolean" and value in (0, 1) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
