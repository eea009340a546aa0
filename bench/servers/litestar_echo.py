"""A bare Litestar handler that decodes the request into a struct and answers with it; no model, no log."""

import msgspec
from litestar import Litestar, post
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK

from bench.model import input_type


class Echo(msgspec.Struct):
    """A predict request, answered as it is."""

    unit: str
    inputs: input_type()  # type: ignore[valid-type]


@post("/predict", status_code=HTTP_200_OK)
async def echo(data: JSONBody[Echo]) -> Echo:
    """Return the request."""
    return data


app = Litestar([echo], openapi_config=None, logging_config=None)
