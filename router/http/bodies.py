"""Bodies of control calls, decoded as strictly as those of the data plane."""

from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from router.documents import fault_in
from router.errors import InvalidDocument
from router.keys import Caller


class StrictRequest(Request[Any, Caller, State]):
    """Decodes a body straight into what its handler takes: Litestar by itself would take "200" for 200."""

    async def json(self) -> Any:
        """Return the decoded body, or raise InvalidDocument naming the field."""
        expected = self.route_handler.parsed_data_field
        body, type_ = await self.body(), Any if expected is None else expected.annotation
        try:
            return msgspec.json.decode(body, type=type_)
        except msgspec.DecodeError as error:
            raise fault_in(body, error, type_).error(InvalidDocument, "the document") from None
