"""The cookies of a run: each goes back to the address that set it, and nothing is stored.

A balancer in front of a service may keep a conversation on one machine by a cookie.
"""

from __future__ import annotations

import re

from aiohttp import CookieJar
from yarl import URL

DOMAIN = re.compile(r";\s*domain\s*=[^;]*", re.IGNORECASE)


class Cookies:
    """The cookies that services have set, kept apart by scheme, host and port."""

    def __init__(self) -> None:
        self._jars: dict[URL, CookieJar] = {}

    def keep(self, url: URL, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the cookies of a reply; whatever domain they name, they are this address's only."""
        found = [value for name, value in headers if name.lower() == b"set-cookie"]
        if not found:
            return
        jar = self._jars.setdefault(url.origin(), CookieJar(unsafe=True))
        texts = [DOMAIN.sub("", value.decode("latin-1")) for value in found]
        jar.update_cookies_from_headers(texts, url)

    def header(self, url: URL) -> bytes:
        """Return the Cookie header for an address; empty where it has set none."""
        jar = self._jars.get(url.origin()) if self._jars else None
        if jar is None:
            return b""
        pairs = (f"{name}={morsel.coded_value}" for name, morsel in jar.filter_cookies(url).items())
        return "; ".join(pairs).encode("latin-1", "ignore")
