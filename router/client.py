"""A client for applications and scripts, synchronous, and asynchronous for the calls made under load."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from router.errors import InvalidKey
from router.settings import Settings

DEFAULT_URL = Settings().router_url

Json = dict[str, Any]


class ApiError(Exception):
    """The router refused or failed; `problem` is its RFC 9457 answer (empty when it sent none)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        said, field = problem.get("detail") or problem.get("title") or "no details", problem.get("field") or ""
        super().__init__(f"{status}: {said}" + ("" if field in said else f" ({field})"))
        self.status = status
        self.problem = dict(problem)


_JSON = {"Content-Type": "application/json"}


def _plain(value: object) -> object:
    """Return what a scalar of numpy or another array library is in plain Python."""
    item = getattr(value, "item", None)
    try:
        plain = item() if callable(item) else value
    except (TypeError, ValueError):
        plain = value
    # A subclass would come back here for ever.
    if type(plain) in (str, int, float, bool):
        return plain
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(
        f"{kind} is no JSON value; convert it first: a number to float or int, a time to text by .isoformat(), a list "
        "by .tolist(), a row by .to_dict(), what is missing to None"
    )


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


class _Call(NamedTuple):
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        content = None if self.body is None else _encode(self.body)
        return http.build_request(self.method, self.path, content=content, headers={**_JSON, **self.headers})


class Turnout:
    """Talks to one router; use it as a context manager or close it. Every call raises ApiError or httpx errors.

    `api_key` is shown with every call; a router needs one as soon as it has keys.
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = 10.0) -> None:
        self._http = httpx.Client(base_url=url, headers=_show(api_key), timeout=timeout_s, verify=_verify(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: _Call) -> Any:
        return _content(self._http.send(call.request(self._http)))

    def predict(
        self,
        endpoint: str,
        *,
        unit: str,
        inputs: Json | Sequence[Json],
        context: Json | None = None,
        id: str | None = None,  # noqa: A002 (the API's own name)
        arm: str | None = None,
    ) -> Json:
        """Return the prediction and the decision behind it.

        `id` makes retries safe; `arm` forces one, for testing, as `arm` or `experiment/arm`.
        """
        reply: Json = self._send(_predict(endpoint, unit, inputs, context, id, arm))
        return reply

    def rank(
        self,
        endpoint: str,
        unit: str,
        candidates: Sequence[Json],
        *,
        context: Json | None = None,
        length: int | None = None,
        id: str | None = None,  # noqa: A002 (the API's own name)
    ) -> Json:
        """Return the candidates to show, best first, and the decision behind them.

        Each candidate is its `id` and its features; at most `length` come back. `id` makes retries safe.
        """
        reply: Json = self._send(_rank(endpoint, unit, candidates, context, length, id))
        return reply

    def outcomes(self, rows: Sequence[Json]) -> Json:
        """Post outcomes; return the receipts and how many were accepted, duplicate and rejected."""
        receipts: Json = self._send(_Call("POST", "/v1/outcomes", list(rows)))
        return receipts

    def decision(self, decision_id: str) -> Json:
        """Return what was decided and what came of it."""
        found: Json = self._send(_Call("GET", f"/v1/decisions/{decision_id}"))
        return found

    def endpoints(self) -> list[Json]:
        """Return every endpoint."""
        found: list[Json] = self._send(_Call("GET", "/v1/endpoints"))
        return found

    def endpoint(self, name: str) -> Json:
        """Return an endpoint's document, revision and times."""
        found: Json = self._send(_Call("GET", f"/v1/endpoints/{name}"))
        return found

    def create_endpoint(self, document: Json) -> Json:
        """Create an endpoint."""
        created: Json = self._send(_Call("POST", "/v1/endpoints", document))
        return created

    def replace_endpoint(self, document: Json, revision: int) -> Json:
        """Replace an endpoint that is still at `revision`."""
        path = f"/v1/endpoints/{document['name']}"
        replaced: Json = self._send(_Call("PUT", path, document, _if_match(revision)))
        return replaced

    def experiments(self) -> list[Json]:
        """Return every experiment."""
        found: list[Json] = self._send(_Call("GET", "/v1/experiments"))
        return found

    def experiment(self, name: str) -> Json:
        """Return an experiment's document, state, revision and times."""
        found: Json = self._send(_Call("GET", f"/v1/experiments/{name}"))
        return found

    def allocation(self, name: str, limit: int = 100) -> list[Json]:
        """Return the newest tables of an experiment's arm probabilities, oldest first."""
        found: list[Json] = self._send(_Call("GET", f"/v1/experiments/{name}/allocation?limit={limit}"))
        return found

    def create_experiment(self, document: Json) -> Json:
        """Create an experiment as a draft."""
        created: Json = self._send(_Call("POST", "/v1/experiments", document))
        return created

    def replace_experiment(self, document: Json, revision: int) -> Json:
        """Replace an experiment that is still at `revision`."""
        path = f"/v1/experiments/{document['name']}"
        replaced: Json = self._send(_Call("PUT", path, document, _if_match(revision)))
        return replaced

    def start(self, name: str, revision: int | None = None) -> Json:
        """Start an experiment that is still at `revision` (at any, when None)."""
        return self._move(name, "start", revision)

    def pause(self, name: str, revision: int | None = None) -> Json:
        """Stop taking units until the experiment is resumed."""
        return self._move(name, "pause", revision)

    def resume(self, name: str, revision: int | None = None) -> Json:
        """Take units again."""
        return self._move(name, "resume", revision)

    def conclude(self, name: str, revision: int | None = None) -> Json:
        """End an experiment for good."""
        return self._move(name, "conclude", revision)

    def _move(self, name: str, verb: str, revision: int | None) -> Json:
        moved: Json = self._send(_Call("POST", f"/v1/experiments/{name}/{verb}", None, _if_match(revision)))
        return moved

    def roll_back(self, name: str, revision: int | None = None) -> Json:
        """End an experiment so that the champion serves everybody; with it ends the rollout that runs it."""
        return self._move(name, "rollback", revision)

    def verdict(self, name: str, arm: str | None = None) -> Json:
        """Return whether an experiment's arm shall advance, be rolled back, or neither yet."""
        query = "" if arm is None else f"?arm={arm}"
        found: Json = self._send(_Call("GET", f"/v1/experiments/{name}/verdict{query}"))
        return found

    def rollouts(self) -> list[Json]:
        """Return every rollout, oldest first, with the steps that it has taken."""
        found: list[Json] = self._send(_Call("GET", "/v1/rollouts"))
        return found

    def rollout(self, name: str) -> Json:
        """Return a rollout: where it is, and the steps that it has taken."""
        found: Json = self._send(_Call("GET", f"/v1/rollouts/{name}"))
        return found

    def rollout_verdict(self, name: str) -> Json:
        """Return what the evidence says now of the stage that a rollout is in."""
        found: Json = self._send(_Call("GET", f"/v1/rollouts/{name}/verdict"))
        return found

    def create_rollout(self, document: Json) -> Json:
        """Create a rollout; it begins once no other one of its endpoint is under way."""
        created: Json = self._send(_Call("POST", "/v1/rollouts", document))
        return created

    def move_rollout(self, name: str, verb: str, revision: int | None = None) -> Json:
        """Make a rollout `hold`, `resume`, `advance` or `rollback`, whatever the evidence says."""
        moved: Json = self._send(_Call("POST", f"/v1/rollouts/{name}/{verb}", None, _if_match(revision)))
        return moved

    def audit(self, limit: int = 100, before: int | None = None) -> list[Json]:
        """Return who changed what, newest first; the next page is `before` the last entry's id."""
        page = f"/v1/audit?limit={limit}" + ("" if before is None else f"&before={before}")
        found: list[Json] = self._send(_Call("GET", page))
        return found

    def models(self) -> list[Json]:
        """Return the model versions in the router's registry."""
        found: list[Json] = self._send(_Call("GET", "/v1/models"))
        return found

    def ready(self) -> bool:
        """Return whether the router answers and every endpoint can; False, not an error, while it is away."""
        try:
            return self._http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


class AsyncTurnout:
    """The calls that applications make under load, asynchronously."""

    def __init__(
        self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = 10.0, connections: int = 100
    ) -> None:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(
            base_url=url, headers=_show(api_key), timeout=timeout_s, limits=limits, verify=_verify(url)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: _Call) -> Any:
        return _content(await self._http.send(call.request(self._http)))

    async def predict(
        self,
        endpoint: str,
        *,
        unit: str,
        inputs: Json | Sequence[Json],
        context: Json | None = None,
        id: str | None = None,  # noqa: A002 (the API's own name)
        arm: str | None = None,
    ) -> Json:
        """Return the prediction and the decision behind it.

        `id` makes retries safe; `arm` forces one, for testing, as `arm` or `experiment/arm`.
        """
        reply: Json = await self._send(_predict(endpoint, unit, inputs, context, id, arm))
        return reply

    async def rank(
        self,
        endpoint: str,
        unit: str,
        candidates: Sequence[Json],
        *,
        context: Json | None = None,
        length: int | None = None,
        id: str | None = None,  # noqa: A002 (the API's own name)
    ) -> Json:
        """Return the candidates to show, best first, and the decision behind them.

        Each candidate is its `id` and its features; at most `length` come back. `id` makes retries safe.
        """
        reply: Json = await self._send(_rank(endpoint, unit, candidates, context, length, id))
        return reply

    async def outcomes(self, rows: Sequence[Json]) -> Json:
        """Post outcomes; return the receipts and how many were accepted, duplicate and rejected."""
        receipts: Json = await self._send(_Call("POST", "/v1/outcomes", list(rows)))
        return receipts

    async def decision(self, decision_id: str) -> Json:
        """Return what was decided and what came of it."""
        found: Json = await self._send(_Call("GET", f"/v1/decisions/{decision_id}"))
        return found


def _show(api_key: str | None) -> Mapping[str, str]:
    """Return the header that shows the key, or raise InvalidKey where HTTP's own error would print it."""
    if api_key is None:
        return {}
    if not (text := api_key.strip()).isascii() or not text.isprintable():
        raise InvalidKey
    return {"Authorization": f"Bearer {text}"}


def _verify(url: str) -> bool:
    """Return whether certificates will be needed; reading them takes longer than a hundred predictions."""
    return not url.startswith("http://")


def _predict(endpoint: str, unit: str, inputs: Any, context: Json | None, key: str | None, arm: str | None) -> _Call:
    body = {"unit": unit, "inputs": inputs}
    if context is not None:
        body["context"] = context
    if key is not None:
        body["id"] = key
    headers = {} if arm is None else {"X-Turnout-Arm": arm}
    return _Call("POST", f"/v1/endpoints/{endpoint}/predict", body, headers)


def _rank(
    endpoint: str, unit: str, candidates: Sequence[Json], context: Json | None, length: int | None, key: str | None
) -> _Call:
    optional = {"context": context, "length": length, "id": key}
    given = {name: value for name, value in optional.items() if value is not None}
    return _Call("POST", f"/v1/endpoints/{endpoint}/rank", {"unit": unit, "candidates": candidates, **given})


def _if_match(revision: int | None) -> Mapping[str, str]:
    return {"If-Match": "*" if revision is None else f'"{revision}"'}


def _content(response: httpx.Response) -> Any:
    is_json = "json" in response.headers.get("content-type", "")
    content = msgspec.json.decode(response.content) if is_json and response.content else {}
    if response.is_error:
        raise ApiError(response.status_code, content)
    return content
