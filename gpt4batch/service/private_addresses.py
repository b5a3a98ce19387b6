"""Addresses inside the user's own network, where a link in an answer must not lead."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gpt4batch.errors import DownloadError
from gpt4batch.words import tr

EMBEDDED = [
    (ipaddress.IPv6Network("::/96"), 0),
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
]
"""Networks whose addresses lead to an IPv4 address, and the bits that follow it."""

FAKE = ipaddress.IPv4Network("198.18.0.0/15")
"""Clash, Surge and the like answer every look-up with one of these and connect by the name.

They are set aside for benchmarks and lead nowhere inside a network, so a name may resolve to them.
"""


def is_private(address: str) -> bool:
    """Return whether an IP address is not one of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        for network, shift in EMBEDDED:
            if ip in network:
                return is_private(str(ipaddress.IPv4Address(int(ip) >> shift & 0xFFFFFFFF)))
    return not ip.is_global or ip.is_multicast


def _refuse(host: str, address: str) -> None:
    if is_private(address):
        raise DownloadError(
            tr(
                "{host} is an address inside this network; --allow-private-downloads fetches "
                "from there",
                host=host,
            )
        )


def refuse_private_literal(host: str) -> None:
    """Refuse a host that is a private address, in the old forms such as 0x7f.1 too."""
    try:
        address = host if ":" in host else socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return  # a name
    _refuse(host, address)


def is_fake(address: str) -> bool:
    """Return whether an address was made up by a proxy on this machine for a name."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped is not None and ip.ipv4_mapped in FAKE
    return ip in FAKE


class PublicResolver(AbstractResolver):
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
            if not is_fake(entry["host"]):
                _refuse(host, entry["host"])
        return found

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()
