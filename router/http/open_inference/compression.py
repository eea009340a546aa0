"""Request bodies that a client compressed, which the protocol's clients can do."""

import zlib

from router.errors import InvalidRequest, RequestTooLarge

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
"""Tells zlib to see by itself which of the two it is."""


def uncompressed(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return a body as it was before its content encoding, without making more than `limit` bytes of it.

    Raises:
        InvalidRequest: The encoding is unknown, or the body is not what it says.
        RequestTooLarge: The body would be larger than the limit.
    """
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return body
    if name not in {"gzip", "deflate"}:
        raise InvalidRequest(f"Content-Encoding {name[:40]!r} is not understood; send gzip, deflate or nothing")
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not what Content-Encoding {name} says: {error}") from None
    if len(content) > limit:
        raise RequestTooLarge(f"the body has more than {limit} bytes when it is uncompressed; send less at once")
    if not stream.eof or stream.unused_data:
        raise InvalidRequest(f"the body is not what Content-Encoding {name} says: it ends too early or too late")
    return content
