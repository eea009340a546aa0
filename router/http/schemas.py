"""Where Litestar's OpenAPI document would say less exactly than the router decides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPI, Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from router.assignment.audience import Condition
from router.documents import Document


@dataclass
class ConditionalOperation(Operation):
    """A write that is based on a revision: without If-Match it answers 428, which names the revision to send."""

    def __post_init__(self) -> None:
        for parameter in self.parameters or ():
            if isinstance(parameter, Parameter) and parameter.name == "If-Match":
                parameter.required = True
                parameter.schema = Schema(type=OpenAPIType.STRING)


def sharpen(document: OpenAPI) -> None:
    """Say which documents refuse unknown fields, and that 1 may be an integer and a number at once."""
    schemas = document.components.schemas or {}
    for schema in schemas.values():
        _allow_overlaps(schema)
    for type_ in _closed(Document, Condition):
        if type_.__name__ in schemas:
            schemas[type_.__name__].additional_properties = False


def _closed(*types: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for type_ in types:
        yield type_
        yield from _closed(*type_.__subclasses__())


def _allow_overlaps(schema: Any) -> None:
    """Turn `oneOf`, under which a value that fits two members fits none, into `anyOf`."""
    if not isinstance(schema, Schema):
        return
    schema.any_of, schema.one_of = schema.any_of or schema.one_of, None
    parts = [*(schema.properties or {}).values(), *(schema.any_of or ()), schema.items, schema.additional_properties]
    for part in parts:
        _allow_overlaps(part)
