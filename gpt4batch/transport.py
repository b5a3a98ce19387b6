"""httpx requests over aiohttp's sockets.

httpx's own pool costs 1,800 µs of CPU a call with 60 connections, aiohttp's 60: requests, responses
and errors stay httpx's, the sockets are aiohttp's. Limits, redirects and decoding are left to the
caller.
"""

from __future__ import annotations

import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

from gpt4batch.errors import UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

    from aiohttp.abc import AbstractResolver

CHUNK = 1 << 18
CONNECT_TIMEOUT = 30.0


@contextmanager
def _as_httpx_errors() -> Iterator[None]:
    """Raise httpx's errors for aiohttp's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout("no connection in time") from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise httpx.ReadTimeout("no answer in time") from error
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
        raise httpx.ProxyError(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error)) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise httpx.UnsupportedProtocol(str(error)) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx.RemoteProtocolError("the reply was cut short") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise httpx.ReadError(str(error) or "the connection was lost") from error


class _Body(httpx.AsyncByteStream):
    """The body of a response as it comes from the socket."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors():
            async for chunk in self._response.content.iter_chunked(CHUNK):
                yield chunk

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
        connector = aiohttp.TCPConnector(
            limit=0, ssl=verify if verify is not None else True, resolver=resolver
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
            skip_auto_headers=("User-Agent", "Content-Type"),
            max_line_size=1 << 16,
            max_field_size=1 << 16,
        )
        self._urls: dict[str, tuple[URL, dict[str, Any]]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the caller reads or closes the response."""
        url, options = self._address(str(request.url))
        headers = CIMultiDict(
            (name.decode(), value.decode()) for name, value in request.headers.raw
        )
        try:
            body: Any = request.content or None
        except httpx.RequestNotRead:
            body = request.stream
            headers.pop("transfer-encoding", None)  # aiohttp sets its own
        with _as_httpx_errors():
            response = await self._session.request(
                request.method, url, data=body, headers=headers, allow_redirects=False, **options
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            request=request,
        )

    def _address(self, text: str) -> tuple[URL, dict[str, Any]]:
        known = self._urls.get(text)
        if known is None:
            url = URL(text, encoded=True)
            proxy = self._proxies.of(url)
            known = (url, {"proxy": proxy} if proxy else {})
            if len(self._urls) < 64:  # a run calls three addresses; downloads differ
                self._urls[text] = known
        return known

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


class Proxies:
    """Which proxy an address is reached by: the given one, or HTTPS_PROXY, ALL_PROXY, NO_PROXY."""

    def __init__(self, proxy: str = "") -> None:
        self._given = _checked(proxy) if proxy else ""
        self._environment = {} if proxy else urllib.request.getproxies_environment()

    def of(self, url: URL) -> str:
        """Return the proxy for an address, or an empty string."""
        if self._given:
            return self._given
        found = self._environment.get(url.scheme) or self._environment.get("all", "")
        if not found or _bypassed(f"{url.host}:{url.port}", self._environment):
            return ""
        return _checked(found if "://" in found else f"http://{found}")


def _bypassed(host: str, environment: dict[str, str]) -> bool:
    """Tell whether NO_PROXY names a host."""
    return bool(urllib.request.proxy_bypass_environment(host, environment))  # type: ignore[attr-defined]


def _checked(proxy: str) -> str:
    if URL(proxy).scheme not in ("http", "https"):
        shown = URL(proxy).with_user(None) if "://" in proxy else proxy
        raise UsageError(f"proxy {shown}: only http:// and https:// proxies are supported")
    return proxy
