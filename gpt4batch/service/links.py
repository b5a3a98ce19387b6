"""Links in answers: the address that each one means, and the way to its file over redirects."""

from __future__ import annotations

import mimetypes
import re
from base64 import b64decode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import httpx

from gpt4batch.errors import DownloadError
from gpt4batch.service.client import USER_AGENT
from gpt4batch.service.failures import calling
from gpt4batch.service.file_names import ASCII, plain
from gpt4batch.service.replies import REDIRECTS
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

REDIRECTS_FOLLOWED = 20
"""As many as browsers follow."""

HEAD_WITHIN = 60.0
"""Seconds in which a reply has to begin."""

AROUND = "".join(map(chr, range(33)))
"""White space and controls, which browsers take off both ends of a link."""

ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
BASE64 = re.compile(r";\s*base64\s*$", re.IGNORECASE)


def guard(own_hosts: frozenset[str], *, allow_private: bool) -> Callable[[httpx.URL], bool]:
    """Return what tells whether an address has to be on the public internet.

    A link in an answer must not make this machine fetch from its neighbours; the service's own
    hosts are allowed whatever they are.
    """
    return lambda url: not allow_private and url.host not in own_hosts


def address_of(link: str, base: str) -> httpx.URL:
    """Return the address that a link means where it stands, as a browser reads it.

    Raises:
        DownloadError: It is not the address of a file on the web.
    """
    address = _resolved(link, base)
    if address.copy_with(fragment=None) == httpx.URL(base):  # nothing in it, such as `//` or `#a`
        raise DownloadError(tr("not an address: {link!r}", link=link[:100]))
    return address


def _resolved(link: str, base: str) -> httpx.URL:
    text = plain(link).strip(AROUND).translate(dict.fromkeys(b"\t\r\n"))
    before, mark, after = text.partition("?")
    text = before.replace("\\", "/") + mark + after
    try:
        address = httpx.URL(text if ABSOLUTE.match(text) else urljoin(base, text))
        fetched = address.scheme in ("http", "https") and bool(address.host)
        if (address.port or 0) > 65535:
            raise DownloadError(tr("not an address: {port} is not a valid port", port=address.port))
    except (httpx.InvalidURL, ValueError) as error:  # a host may be refused when it is read
        raise DownloadError(tr("not an address: {error}", error=error)) from None
    if not fetched:
        raise DownloadError(
            tr("only http and https addresses are fetched, not {link!r}", link=link[:100])
        )
    return address


def is_data(link: str) -> bool:
    """Return whether a link holds its file itself (`data:`)."""
    return link.strip(AROUND)[:5].lower() == "data:"


def data_of(link: str) -> tuple[bytes, str]:
    """Return what a `data:` link holds, and a name for it.

    Raises:
        DownloadError: It cannot be decoded.
    """
    kind, comma, text = link.strip(AROUND)[5:].partition(",")
    content = unquote_to_bytes(text)
    if found := BASE64.search(kind):
        kind = kind[: found.start()]
        content = b"".join(content.split())
        try:
            content = b64decode(content + b"=" * (-len(content) % 4), validate=True)
        except ValueError as error:
            raise DownloadError(
                tr("a data: link that cannot be decoded: {error}", error=error)
            ) from None
    if not comma:
        raise DownloadError(tr("a data: link without a comma before its data"))
    return content, f"file{mimetypes.guess_extension(kind.partition(';')[0].strip()) or ''}"


class Links:
    """Open links anonymously: without the token and without cookies.

    Args:
        transport: Sends the requests.
        base: The address that relative links start from.
        public: Tells whether an address has to be on the public internet.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        base: str,
        public: Callable[[httpx.URL], bool],
    ) -> None:
        self._transport = transport
        self._public = public
        self.base = base

    @asynccontextmanager
    async def open(
        self, address: httpx.URL, headers: dict[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Open an address, following redirects; the body is left to be read as it comes.

        Raises:
            DownloadError: The address is refused.
            RetryableError: It may be there later.
        """
        headers = {"user-agent": USER_AGENT, "accept": "*/*", **headers}
        for _ in range(REDIRECTS_FOLLOWED + 1):
            extensions: dict[str, Any] = {"streamed": True, "timeout": HEAD_WITHIN}
            if self._public(address):
                extensions["public"] = True
            request = httpx.Request("GET", address, headers=headers, extensions=extensions)
            with calling("download"):
                response = await self._transport.handle_async_request(request)
            if response.status_code not in REDIRECTS:
                try:
                    yield response
                finally:
                    await response.aclose()
                return
            await response.aclose()
            address = _target(response, address)
        raise DownloadError(tr("more than {most} redirects", most=REDIRECTS_FOLLOWED))


def _target(response: httpx.Response, address: httpx.URL) -> httpx.URL:
    """Return where a redirect leads; bytes that are no ASCII go on as they came."""
    location = next(
        (text for name, text in response.headers.raw if name.lower() == b"location"), b""
    )
    if not location.strip():
        raise DownloadError(tr("{code}: a redirect without an address", code=response.status_code))
    try:
        return _resolved(quote(location, safe=ASCII), str(address))
    except DownloadError as error:
        raise DownloadError(tr("a redirect to nowhere: {error}", error=error)) from None
