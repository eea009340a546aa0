"""A bare Litestar handler that decodes a list of outcomes into structs and answers with it; nothing is stored."""

import msgspec
from litestar import Litestar, post
from litestar.params import JSONBody
from litestar.status_codes import HTTP_200_OK


class Outcome(msgspec.Struct):
    """An outcome as clients post it."""

    decision_id: str
    metric: str
    value: float


@post("/outcomes", status_code=HTTP_200_OK)
async def echo(data: JSONBody[list[Outcome]]) -> list[Outcome]:
    """Return the outcomes."""
    return data


app = Litestar([echo], openapi_config=None, logging_config=None)
