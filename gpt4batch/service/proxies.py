"""Which proxy an address is reached by: --proxy, or HTTPS_PROXY and its kin, and NO_PROXY."""

from __future__ import annotations

import ipaddress
import os
import re
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import unquote

from yarl import URL

from gpt4batch.errors import UsageError
from gpt4batch.settings import is_address, without_user
from gpt4batch.words import tr

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the flag or variable that named it."""

    url: URL
    source: str

    def __str__(self) -> str:
        """Return what a message may show of it."""
        url = without_user(str(self.url)).rstrip("/")
        return tr("the proxy {url} ({source})", url=url, source=self.source)

    @property
    def authorization(self) -> bytes:
        """Return what the proxy knows the user by; empty if its address has no user name."""
        if self.url.raw_user is None:
            return b""
        pair = f"{unquote(self.url.raw_user)}:{unquote(self.url.raw_password or '')}"
        return b"Basic " + b64encode(pair.encode())


class Proxies:
    """The proxies of a run; this machine itself is never reached by one."""

    def __init__(self, proxy: str = "") -> None:
        self._given = _checked(proxy, "--proxy") if proxy else None
        self._environment = {} if proxy else urllib.request.getproxies_environment()

    def of(self, url: URL) -> Proxy | None:
        """Return the proxy for an address, or None.

        Raises:
            UsageError: It is not the address of a proxy, or of a kind that is not supported.
        """
        host = (url.host or "").rstrip(".")
        if _is_loopback(host):
            return None
        if self._given:
            return self._given
        scheme = url.scheme if self._environment.get(url.scheme) else "all"
        found = self._environment.get(scheme, "").strip()
        excepted = re.split(r"[\s,;]+", self._environment.get("no", ""))
        if not found or any(_names(entry, host.lower(), url.port) for entry in excepted if entry):
            return None
        low = f"{scheme}_proxy"  # a message names the variable as it is written
        names = (name for name in (low, *os.environ) if name in os.environ)
        variable = next(name for name in names if name.lower() == low)
        return _checked(found if "://" in found else f"http://{found}", variable)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_loopback(host: str) -> bool:
    address = _ip(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    name = host.lower()
    return name == "localhost" or name.endswith(".localhost")


def _names(entry: str, host: str, port: int | None) -> bool:
    """Return whether an entry of NO_PROXY (name, domain, address, network) names a host."""
    if entry == "*":
        return True
    entry, wanted = _with_port(entry.lower().rpartition("://")[2])
    if wanted is not None and wanted != port:
        return False
    address = _ip(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _with_port(entry: str) -> tuple[str, int | None]:
    """Take the port from an entry: `host:8080`, `[::1]:8080`; `::1` has no port."""
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        return host, int(port)
    return entry, None


def _checked(proxy: str, source: str) -> Proxy:
    """Return the proxy, or refuse what is not the address of one; `source` is what set it."""
    shown = f"{source} {without_user(proxy)!r}"
    scheme = proxy.partition("://")[0].lower() if "://" in proxy else ""
    if scheme not in DEFAULT_PORTS:
        raise UsageError(
            tr("{shown}: only http:// and https:// proxies are supported", shown=shown)
        )
    try:
        url = URL(proxy) if is_address(proxy) else None
    except ValueError:
        url = None
    if url is None or not url.host:
        raise UsageError(
            tr("{shown}: not the address of a proxy, such as http://127.0.0.1:3128", shown=shown)
        )
    return Proxy(url, source)


def proxy_of(url: str, given: str = "") -> Proxy | None:
    """Return the proxy that a run would reach an address by.

    Raises:
        UsageError: The proxy cannot be used, or the address is not one.
    """
    try:
        return Proxies(given).of(URL(url, encoded=True))
    except ValueError as error:
        raise UsageError(tr("{url!r} is not an address: {error}", url=url, error=error)) from None
