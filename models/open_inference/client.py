"""A client of one model on a server of the protocol, for threads and for an event loop."""

import asyncio
import weakref
from http import HTTPStatus
from typing import NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from models.errors import InvalidTensor, RemoteError, RemoteRefused, RemoteUnavailable
from models.open_inference.bodies import Body, read_response
from models.open_inference.messages import HEADER_LENGTH, ModelMetadata, ServerError, ServerMetadata
from models.open_inference.tensors import Tensor

TIMEOUT = httpx.Timeout(60.0, connect=2.0)
"""Callers with less time give up earlier by themselves."""

_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=5.0)
_LONGEST_MESSAGE = 300
_NOT_NOW = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# What a server does to a kept connection that it closes just when a request comes; asking twice changes nothing.
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)

Message = TypeVar("Message", ServerMetadata, ModelMetadata)


class InferenceClient:
    """Calls one model; raises RemoteUnavailable or RemoteRefused, which name the address and never the token."""

    def __init__(self, url: str, model_name: str, model_version: str | None = None, token: str | None = None) -> None:
        self._server = f"{checked_url(url)}/v2"
        version = "" if model_version is None else f"/versions/{quote(model_version, safe='')}"
        self._model = f"{self._server}/models/{quote(model_name, safe='')}{version}"
        self._token = token
        self._client = httpx.Client(verify=self._is_secure, timeout=TIMEOUT, limits=_LIMITS)
        # Models are dropped when nothing uses them any more, and nobody says goodbye to them.
        weakref.finalize(self, self._client.close)
        self._asynchronous: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None

    def close(self) -> None:
        """Close the connections of threads."""
        self._client.close()

    async def aclose(self) -> None:
        """Close all connections, within the loop that they were made in."""
        self.close()
        if self._asynchronous is not None:
            await self._asynchronous[1].aclose()

    def server(self) -> ServerMetadata:
        """Return what the server says of itself."""
        return self._decoded(self._server, ServerMetadata)

    def model(self) -> ModelMetadata:
        """Return what the server says of the model."""
        return self._decoded(self._model, ModelMetadata)

    def check_ready(self) -> None:
        """Raise RemoteUnavailable unless the server says that the model can answer."""
        try:
            self._get(f"{self._model}/ready")
        except RemoteRefused as error:
            raise RemoteUnavailable(str(error)) from None

    def infer(self, body: Body) -> list[Tensor]:
        """Return the outputs for a request."""
        url, headers = f"{self._model}/infer", self._headers(body)
        try:
            try:
                response = self._client.post(url, content=body.content, headers=headers)
            except _BROKEN:
                response = self._client.post(url, content=body.content, headers=headers)
        except httpx.HTTPError as error:
            self._fail(url, error)
        return self._outputs(url, response)

    async def infer_async(self, body: Body) -> list[Tensor]:
        """Return the outputs for a request, without blocking the running loop."""
        url, headers, client = f"{self._model}/infer", self._headers(body), self._client_of_this_loop()
        try:
            try:
                response = await client.post(url, content=body.content, headers=headers)
            except _BROKEN:
                response = await client.post(url, content=body.content, headers=headers)
        except httpx.HTTPError as error:
            self._fail(url, error)
        return self._outputs(url, response)

    @property
    def _is_secure(self) -> bool:
        """Whether certificates are needed; reading them takes long."""
        return self._server.startswith("https:")

    def _client_of_this_loop(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._asynchronous is None or self._asynchronous[0] is not loop:
            client = httpx.AsyncClient(verify=self._is_secure, timeout=TIMEOUT, limits=_LIMITS)
            weakref.finalize(self, _close_in, loop, client)
            self._asynchronous = loop, client
        return self._asynchronous[1]

    def _headers(self, body: Body | None = None) -> dict[str, str]:
        headers = {} if body is None else body.headers
        return headers if self._token is None else {**headers, "Authorization": f"Bearer {self._token}"}

    def _get(self, url: str) -> httpx.Response:
        try:
            response = self._client.get(url, headers=self._headers())
        except httpx.HTTPError as error:
            self._fail(url, error)
        self._check(url, response)
        return response

    def _decoded(self, url: str, type_: type[Message]) -> Message:
        content = self._get(url).content
        try:
            return msgspec.json.decode(content, type=type_)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteRefused(f"{url} gives no {type_.__name__}: {error}") from None

    def _outputs(self, url: str, response: httpx.Response) -> list[Tensor]:
        self._check(url, response)
        try:
            return read_response(response.content, response.headers.get(HEADER_LENGTH))[1]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidTensor) as error:
            raise RemoteRefused(f"{url} gives no predictions: {error}") from None

    def _fail(self, url: str, error: httpx.HTTPError) -> NoReturn:
        raise RemoteUnavailable(f"{url} does not answer: {str(error) or type(error).__name__}") from error

    def _check(self, url: str, response: httpx.Response) -> None:
        status = response.status_code
        if status == HTTPStatus.OK:
            return
        kind: type[RemoteError] = RemoteUnavailable if status in _NOT_NOW else RemoteRefused
        message = _message(response.content)
        if self._token:
            message = message.replace(self._token, "...")
        raise kind(f"{url} answers {status}{': ' if message else ''}{message}")


def _close_in(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(client.aclose(), loop)


def checked_url(url: str) -> str:
    """Return a server's address without a slash at its end; raises RemoteRefused for what is none."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RemoteRefused(f"this is not the address of a model server: {error}") from None
    if parts.userinfo:
        raise RemoteRefused("the address of a model server must not hold a name or password; use a token variable")
    is_server = parts.scheme in {"http", "https"} and parts.host and (parts.port or 0) < 2**16
    if not is_server or parts.query or parts.fragment:
        raise RemoteRefused(f"{url!r} is not the address of a model server, such as http://models.internal:8000")
    return url.rstrip("/")


def _message(content: bytes) -> str:
    """Return what an error's body says."""
    try:
        text = msgspec.json.decode(content, type=ServerError).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = content.decode(errors="replace")
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 3]}..."
