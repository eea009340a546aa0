"""The router as a resource: where it is, how to open a client, and what it says of an endpoint."""

import httpx

from router.client import ApiError, Turnout
from router.settings import Settings


class Router:
    """The router of these settings, which may be away."""

    def __init__(self, settings: Settings):
        self._settings = settings

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._settings.router_url

    def client(self) -> Turnout:
        """A client with the configured key; close it, or use it as a context manager."""
        return Turnout(self.url, api_key=self._settings.api_key)

    def champion(self, endpoint: str) -> str | None:
        """The `name@version` that serves the endpoint; None while the router is away or does not know it.

        Raises ApiError when it answers anything else: a wrong key must not look like a router that is away.
        """
        try:
            with self.client() as client:
                return str(client.endpoint(endpoint)["document"]["champion"])
        except httpx.TransportError:
            return None
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
