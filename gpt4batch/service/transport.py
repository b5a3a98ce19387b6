"""httpx requests over aiohttp's sockets.

httpx's own pool costs 1,800 µs of CPU a call with 60 connections, aiohttp's 60: requests, responses
and errors stay httpx's, the sockets are aiohttp's. Limits, redirects and decoding are left to the
caller.
"""

from __future__ import annotations

import os
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from gpt4batch.errors import UsageError
from gpt4batch.service.private_addresses import PublicResolver, refuse_private_literal
from gpt4batch.settings import is_address, without_user

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractResolver

CHUNK = 1 << 18
CONNECT_TIMEOUT = 30.0


ERRORS: list[tuple[type[Exception], type[httpx.HTTPError]]] = [
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (Exception, httpx.ReadError),
]
"""aiohttp's errors, the special before the general, and httpx's for them."""

STATUS = re.compile(r"^400, message(:|=) ?")
"""How aiohttp begins what it says of a reply that it cannot read, whatever the reply's status."""

LOST = (aiohttp.ClientError, TimeoutError, ConnectionError)


def _translated(error: Exception) -> httpx.HTTPError:
    """Return httpx's error for one of aiohttp's."""
    text = str(error) or "the connection was lost"
    if isinstance(error, aiohttp.ClientHttpProxyError):  # its text has the proxy's password
        text = f"the proxy answered {error.status} {error.message}"
    elif isinstance(error, aiohttp.ClientConnectorError) and not isinstance(
        error, aiohttp.ClientSSLError
    ):  # those of certificates tell more themselves
        number = error.os_error.errno or 0
        reason = os.strerror(number) if number > 0 else error.os_error.strerror
        text = f"cannot connect to {error.host}:{error.port}: {reason}"
    text = STATUS.sub("", " ".join(text.split()))
    return next((ours(text) for theirs, ours in ERRORS if isinstance(error, theirs)))


class _Body(httpx.AsyncByteStream):
    """The body of a response as it comes from the socket."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except LOST as error:
            raise _translated(error) from error

    async def aclose(self) -> None:
        self._response.close()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send httpx requests through an aiohttp session.

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
        self._session = self._opened(resolver)
        self._public: aiohttp.ClientSession | None = None
        self._urls: dict[str, tuple[URL, dict[str, Any]]] = {}

    def _opened(self, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._verify, resolver=resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
            skip_auto_headers=("User-Agent", "Content-Type"),
            read_bufsize=CHUNK,
            max_line_size=1 << 16,
            max_field_size=1 << 16,
        )

    def _session_for(self, request: httpx.Request, *, proxied: bool) -> aiohttp.ClientSession:
        """Return the session to use: a `public` request gets one that stays out of this network.

        Behind a proxy it is the proxy that looks names up and connects.
        """
        if "public" not in request.extensions:
            return self._session
        refuse_private_literal(request.url.host)
        if proxied:
            return self._session
        if self._public is None:
            self._public = self._opened(PublicResolver(self._resolver))
        return self._public

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its response, its body received and decoded.

        Three extensions of a request are known: `timeout`, the seconds that the whole call may
        take; `streamed`, which leaves the body to the caller, to be read as it comes or closed; and
        `public`, which refuses addresses inside the user's own network.
        """
        url, options = self._address(str(request.url))
        headers = CIMultiDict(
            (name.decode(), value.decode()) for name, value in request.headers.raw
        )
        body: Any = request.stream
        if isinstance(body, httpx.ByteStream):
            body = b"".join(body) or None
        else:
            headers.pop("transfer-encoding", None)  # aiohttp sets its own
        session = self._session_for(request, proxied="proxy" in options)
        timeout = request.extensions.get("timeout")
        if timeout is not None:
            options = {**options, "timeout": self._timeout(timeout)}
        streamed = "streamed" in request.extensions
        stream: httpx.AsyncByteStream
        try:
            response = await session.request(
                request.method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                auto_decompress=not streamed,
                **options,
            )
            stream = _Body(response) if streamed else httpx.ByteStream(await response.read())
        except LOST as error:
            raise _translated(error) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=stream)

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, connect=min(seconds, CONNECT_TIMEOUT))

    def _address(self, text: str) -> tuple[URL, dict[str, Any]]:
        known = self._urls.get(text)
        if known is None:
            try:
                url = URL(text, encoded=True)
                proxy = self._proxies.of(url)
            except ValueError as error:
                raise httpx.UnsupportedProtocol(f"not an address: {error}") from None
            except UsageError as error:  # that of another host: the service's is looked at before
                raise httpx.ProxyError(str(error)) from None
            known = (url, {"proxy": proxy} if proxy else {})
            if len(self._urls) < 64:  # a run calls three addresses; downloads differ
                self._urls[text] = known
        return known

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()
        if self._public is not None:
            await self._public.close()


def body_of(response: httpx.Response) -> bytes:
    """Return the body of a response that was not streamed.

    `Response.read` would decode it once more, and costs a tenth of a whole call.
    """
    assert isinstance(response.stream, httpx.ByteStream)
    return b"".join(response.stream)


class Proxies:
    """Which proxy an address is reached by: the given one, or HTTPS_PROXY, ALL_PROXY, NO_PROXY."""

    def __init__(self, proxy: str = "") -> None:
        self._given = _checked(proxy, "--proxy") if proxy else ""
        self._environment = {} if proxy else urllib.request.getproxies_environment()

    def of(self, url: URL) -> str:
        """Return the proxy for an address, or an empty string."""
        if self._given:
            return self._given
        scheme = url.scheme if self._environment.get(url.scheme) else "all"
        found = self._environment.get(scheme, "")
        if not found or _bypassed(f"{url.host}:{url.port}", self._environment):
            return ""
        return _checked(found if "://" in found else f"http://{found}", _variable(scheme))


def _bypassed(host: str, environment: dict[str, str]) -> bool:
    """Tell whether NO_PROXY names a host."""
    return bool(urllib.request.proxy_bypass_environment(host, environment))  # type: ignore[attr-defined]


def _variable(scheme: str) -> str:
    """Return the variable, as it is written, that sets the proxy of a scheme."""
    low = f"{scheme}_proxy"
    return next(name for name in (low, *os.environ) if name.lower() == low and name in os.environ)


def _checked(proxy: str, name: str) -> str:
    """Return the proxy, or refuse one that is none; `name` is what set it."""
    shown = f"{name} {without_user(proxy)!r}"
    scheme = proxy.partition("://")[0].lower() if "://" in proxy else ""
    if scheme not in ("http", "https"):
        raise UsageError(f"{shown}: only http:// and https:// proxies are supported")
    try:
        good = is_address(proxy) and bool(URL(proxy).host)
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{shown}: not the address of a proxy, such as http://127.0.0.1:3128")
    return proxy


def proxy_of(url: str, given: str = "") -> str:
    """Return the proxy that a run would reach an address by.

    Raises:
        UsageError: It is none, or of a kind that is not supported; or the address is none.
    """
    try:
        return Proxies(given).of(URL(url, encoded=True))
    except ValueError as error:
        raise UsageError(f"{url!r} is not an address: {error}") from None
