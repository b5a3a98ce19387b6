"""The cookies of a run: each goes back to the address that set it, and nothing is stored.

A balancer in front of a service may keep a conversation on one machine by a cookie.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from yarl import URL

DOMAIN = re.compile(rb";\s*domain\s*=[^;]*", re.IGNORECASE)

ANY_BYTES = "iso-8859-1"
"""The character set that gives back what it was given."""


class Cookies:
    """The cookies that services have set, kept apart by scheme, host and port."""

    def __init__(self) -> None:
        self._jars: dict[URL, httpx.Cookies] = {}

    def keep(self, url: URL, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the cookies of a reply; whatever domain they name, they are this address's only."""
        jar = self._jars.setdefault(url.origin(), httpx.Cookies())
        found = [
            (name, DOMAIN.sub(b"", value))
            for name, value in headers
            if name.lower() == b"set-cookie"
        ]
        reply = httpx.Response(200, headers=found, request=httpx.Request("GET", str(url)))
        reply.headers.encoding = ANY_BYTES
        jar.extract_cookies(reply)

    def header(self, url: URL) -> bytes:
        """Return the Cookie header for an address; empty if no cookie was set."""
        jar = self._jars.get(url.origin()) if self._jars else None
        if jar is None:
            return b""
        request = httpx.Request("GET", str(url))
        request.headers.encoding = ANY_BYTES
        jar.set_cookie_header(request)
        return dict(request.headers.raw).get(b"Cookie", b"")
