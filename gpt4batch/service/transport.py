"""httpx requests over aiohttp's connections.

httpx's own pool costs 1,800 µs of CPU a call with 60 connections, aiohttp's 60: requests and
responses stay httpx's, connections are opened and kept by aiohttp's connector. Redirects are left
to the caller.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gpt4batch.errors import DownloadError, UsageError
from gpt4batch.service.connections import Connections
from gpt4batch.service.cookies import Cookies
from gpt4batch.service.deadlines import Deadlines
from gpt4batch.service.exchange import Exchange, Route
from gpt4batch.service.proxies import Proxies

if TYPE_CHECKING:
    import ssl

EMBEDDED = [
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
]
"""Networks whose addresses lead to an IPv4 address, and the bits that follow it."""


def is_private(address: str) -> bool:
    """Tell whether an IP address is not one of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        for network, shift in EMBEDDED:
            if ip in network:
                return is_private(str(ipaddress.IPv4Address(int(ip) >> shift & 0xFFFFFFFF)))
    return not ip.is_global or ip.is_multicast


def _refuse_private(host: str, address: str) -> None:
    if is_private(address):
        raise DownloadError(
            f"{host} is an address inside this network; "
            "--allow-private-downloads fetches from there"
        )


def _refuse_private_literal(host: str) -> None:
    """Refuse a host that is a private address, in the old forms such as 0x7f.1 too."""
    try:
        address = host if ":" in host else socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return  # a name
    _refuse_private(host, address)


class _PublicResolver(AbstractResolver):
    """Look up names that must not lead into this network.

    The addresses that are checked here are the ones connected to: a name that is looked up twice
    may have changed between.
    """

    def __init__(self, resolver: AbstractResolver | None) -> None:
        self._resolver = resolver or aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host, or refuse it."""
        try:
            found = await self._resolver.resolve(host, port, family)
        except UnicodeError as error:
            raise OSError(None, str(error)) from None
        for entry in found:
            _refuse_private(host, entry["host"])
        return found

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()


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
        _refuse_private_literal(request.url.host)
        if proxied:
            return self._connections
        if self._public is None:
            self._public = Connections(self._verify, _PublicResolver(self._resolver))
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
                raise httpx.UnsupportedProtocol(f"not an address: {error}") from None
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
    damage: bytes = response.extensions.get("damage", b"")
    return damage.decode()
