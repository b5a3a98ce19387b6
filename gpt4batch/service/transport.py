"""httpx requests over aiohttp's connections.

httpx's own pool costs 1,800 µs of CPU a call with 60 connections, aiohttp's 60: requests and
responses stay httpx's, connections are opened and kept by aiohttp's connector. Redirects are left
to the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from yarl import URL

from gpt4batch.errors import UsageError
from gpt4batch.service.connections import Connections
from gpt4batch.service.cookies import Cookies
from gpt4batch.service.deadlines import Deadlines
from gpt4batch.service.exchange import Exchange, Route
from gpt4batch.service.private_addresses import PublicResolver, refuse_private_literal
from gpt4batch.service.proxies import Proxies
from gpt4batch.words import tr

if TYPE_CHECKING:
    import ssl

    from aiohttp.abc import AbstractResolver


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send httpx requests over aiohttp's connections.

    Args:
        proxy: The proxy for every address; by default the environment says which.
        verify: The certificates to trust, for https.
        resolver: Looks up names; by default the system's.
    """

    def __init__(
        self,
        *,
        proxy: str = "",
        verify: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._proxies = Proxies(proxy)
        self._verify = verify if verify is not None else True
        self._resolver = resolver
        self._connections = Connections(self._verify, resolver)
        self._public: Connections | None = None
        self._routes: dict[str, Route] = {}
        self._cookies = Cookies()
        self._deadlines = Deadlines()

    def _connections_for(self, request: httpx.Request, *, proxied: bool) -> Connections:
        """Return what to connect by: a `public` request stays out of this network.

        Behind a proxy it is the proxy that looks names up and connects.
        """
        if "public" not in request.extensions:
            return self._connections
        refuse_private_literal(request.url.host)
        if proxied:
            return self._connections
        if self._public is None:
            self._public = Connections(self._verify, PublicResolver(self._resolver))
        return self._public

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response, its body received and decoded.

        Three extensions of a request are known: `timeout`, the seconds that the reply may take
        once the request is on its way; `streamed`, which leaves the body to the caller, to be read
        as it comes or closed; and `public`, which refuses addresses inside the user's own network.

        Raises:
            OutOfDescriptors: Nothing was sent, and would not be before a descriptor is free.
            httpx.HTTPError: There is no whole response.
        """
        route = self._route(str(request.url))
        connections = self._connections_for(request, proxied=route.proxy is not None)
        seconds = request.extensions.get("timeout", float("inf"))
        exchange = Exchange(request, route, self._deadlines, self._cookies, seconds)
        return await exchange.run(connections)

    def _route(self, text: str) -> Route:
        known = self._routes.get(text)
        if known is None:
            try:
                url = URL(text, encoded=True)
                proxy = self._proxies.of(url)
                known = Route.to(url, proxy)
            except ValueError as error:
                raise httpx.UnsupportedProtocol(
                    tr("not an address: {error}", error=error)
                ) from None
            except UsageError as error:  # that of another host: the service's is looked at before
                raise httpx.ProxyError(str(error)) from None
            if len(self._routes) < 64:  # a run calls three addresses; downloads differ
                self._routes[text] = known
        return known

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()
        if self._public is not None:
            await self._public.aclose()


def body_of(response: httpx.Response) -> bytes:
    """Return the body of a response that was not streamed.

    `Response.read` would decode it once more, and costs a tenth of a whole call.
    """
    assert isinstance(response.stream, httpx.ByteStream)
    return b"".join(response.stream)


def damage_of(response: httpx.Response) -> str:
    """Return why the body of a response may not be what was sent; empty where all is well."""
    damage: str = response.extensions.get("damage", "")
    return damage
