"""Bodies of control calls, decoded as strictly as those of the data plane."""

from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State

from router.documents import split_path
from router.errors import InvalidDocument
from router.keys import Caller


class StrictRequest(Request[Any, Caller, State]):
    """Decodes a body straight into what its handler takes: Litestar by itself would take "200" for 200."""

    async def json(self) -> Any:
        """Return the decoded body, or raise InvalidDocument naming the field."""
        expected = self.route_handler.parsed_data_field
        try:
            return msgspec.json.decode(await self.body(), type=Any if expected is None else expected.annotation)
        except msgspec.ValidationError as error:
            message, field = split_path(error)
            raise InvalidDocument(f"{field or 'the document'}: {message}", field=field) from None
        except msgspec.DecodeError as error:
            raise InvalidDocument(
                f"the body is not valid JSON: {error}; NaN and Infinity are not JSON either"
            ) from None
