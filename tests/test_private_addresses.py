from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gpt4batch.errors import DownloadError
from gpt4batch.service.private_addresses import PublicResolver, refuse_private_literal


class Answering(AbstractResolver):
    """A resolver that answers every look-up with the same address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Close nothing."""


@pytest.mark.parametrize("address", ["198.18.0.9", "198.19.255.254", "::ffff:198.18.0.9"])
async def test_name_that_a_proxy_makes_up_an_address_for_is_fetched(address: str) -> None:
    [found] = await PublicResolver(Answering(address)).resolve("files.test")
    assert found["host"] == address


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "fc00::1"])
async def test_name_that_leads_inside_is_refused_with_the_flag_that_allows_it(
    address: str,
) -> None:
    resolver = PublicResolver(Answering(address))
    with pytest.raises(DownloadError, match=r"files\.test .* --allow-private-downloads"):
        await resolver.resolve("files.test")


@pytest.mark.parametrize("host", ["198.18.0.9", "0xc6.18.9", "3323068425"])
def test_made_up_address_that_a_link_names_itself_is_refused(host: str) -> None:
    with pytest.raises(DownloadError, match="--allow-private-downloads"):
        refuse_private_literal(host)
